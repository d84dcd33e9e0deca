//! A program whose own rustls has its default features. With the feature `openai` it has two providers, and rustls
//! cannot choose.

use std::panic::catch_unwind;

use rustls::{ClientConfig, RootCertStore};

#[test]
fn a_program_with_its_own_rustls_builds_configurations_once_a_provider_is_installed() {
    // The embedder names its provider, before and after.
    hosts::embedders().expect("builds before");
    let alone = catch_unwind(ClientConfig::builder);
    assert!(alone.is_err(), "rustls can choose by itself: then the page of `OpenAi` must not ask for a provider");
    rustls::crypto::aws_lc_rs::default_provider().install_default().expect("the first one");
    let config = ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    assert!(!config.crypto_provider().cipher_suites.is_empty());
    hosts::embedders().expect("builds after");
}
