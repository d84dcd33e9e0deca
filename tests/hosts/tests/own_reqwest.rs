//! A program whose own reqwest has no TLS. The feature `openai` turns on TLS without a provider for it too.

use std::panic::catch_unwind;

#[test]
fn a_program_with_its_own_reqwest_builds_clients_once_a_provider_is_installed() {
    // The embedder brings a provider of its own, before and after.
    hosts::embedders().expect("builds before");
    let alone = catch_unwind(reqwest::Client::new);
    assert!(alone.is_err(), "reqwest needs no provider any more: then the page of `OpenAi` must not ask for one");
    rustls::crypto::ring::default_provider().install_default().expect("the first one");
    reqwest::Client::builder().build().expect("the program's client");
    hosts::embedders().expect("builds after");
}
