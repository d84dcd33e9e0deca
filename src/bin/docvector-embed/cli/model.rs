//! Defines the arguments that choose a model and how it is loaded.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use docvector_embed::{
    Normalization, Pooling, Precision,
    provider::{Device, Onnx, OnnxBuilder},
};

use super::at_least_one::at_least_one;

/// How a model is loaded.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    #[command(flatten)]
    pub(crate) model_args: ModelArgs,
    /// Threads to compute on [default: the tuned number, else one per core]
    #[arg(long, value_name = "N", requires = "model", value_parser = at_least_one)]
    threads: Option<NonZeroUsize>,
}

impl LoadArgs {
    /// Returns a builder of the model in `folder` with these arguments.
    pub(crate) fn builder(&self, folder: &Path) -> OnnxBuilder {
        let builder = self.model_args.builder(folder);
        match self.threads {
            Some(threads) => builder.with_threads(threads.get()),
            None => builder,
        }
    }

    /// Returns an option that was given, if one was.
    pub(crate) fn given(&self) -> Option<&'static str> {
        if self.threads.is_some() { Some("--threads") } else { self.model_args.given() }
    }
}

/// The choice of a model, and how it treats texts.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// ONNX Runtime's library, or its folder [default: searched for]
    #[arg(long, value_name = "PATH")]
    pub(crate) library: Option<PathBuf>,
    /// File of the model, relative to its folder [default: model.safetensors, else model.onnx, else onnx/model.onnx]
    #[arg(long, value_name = "PATH", requires = "model")]
    file: Option<PathBuf>,
    /// Pooling, one or more with commas between them: cls, mean, max, lasttoken, weightedmean, mean_sqrt_len_tokens
    /// [default: what the model's modules.json says; without it, what is known of a well-known model]
    #[arg(long, value_name = "POOLING", requires = "model", value_delimiter = ',')]
    pooling: Vec<Pooling>,
    /// Scale vectors to length 1; with `none`: do not [default: what the model's modules.json says; without it, what is
    /// known of a well-known model, else none]
    #[arg(long, value_name = "l2|none", requires = "model", num_args = 0..=1)]
    #[arg(default_missing_value = "l2")]
    normalize: Option<Normalization>,
    /// Maximum number of tokens per text [default: the model's limit]
    #[arg(long, value_name = "N", requires = "model", value_parser = at_least_one)]
    max_tokens: Option<NonZeroUsize>,
    /// Device to run on: cpu, cuda or cuda:N; several GPUs with commas between them
    #[arg(long, value_name = "DEVICE", requires = "model", value_delimiter = ',', default_value = "cpu")]
    device: Vec<Device>,
    /// Precision of the layers: int8 is faster, less exact, for CPUs only, and gives vectors of another space
    #[arg(long, value_enum, requires = "model", default_value_t = PrecisionArg::Full)]
    precision: PrecisionArg,
    /// Bits of the weights in int8: 7 gives CPUs of all kinds one space [default: 8 where the CPU adds them exactly]
    #[arg(long, value_name = "7|8", requires = "model")]
    weight_bits: Option<u8>,
}

/// The precision of a model's layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PrecisionArg {
    /// fp32 on a CPU, fp16 on a GPU
    Full,
    /// 8 bits
    Int8,
}

impl ModelArgs {
    /// Returns whether pooling or normalization is stated in place of the model's own.
    pub(crate) fn states_pooling(&self) -> bool {
        !self.pooling.is_empty() || self.normalize.is_some()
    }

    fn given(&self) -> Option<&'static str> {
        let given = [
            ("--library", self.library.is_some()),
            ("--file", self.file.is_some()),
            ("--pooling", !self.pooling.is_empty()),
            ("--normalize", self.normalize.is_some()),
            ("--max-tokens", self.max_tokens.is_some()),
            ("--device", self.device != [Device::Cpu]),
            ("--precision", self.precision != PrecisionArg::Full),
            ("--weight-bits", self.weight_bits.is_some()),
        ];
        given.into_iter().find_map(|(option, is_given)| is_given.then_some(option))
    }

    /// Returns a builder of the model in `folder` with these arguments.
    pub(crate) fn builder(&self, folder: &Path) -> OnnxBuilder {
        let mut builder = Onnx::builder(folder);
        if let Some(path) = &self.library {
            builder = builder.with_library(path);
        }
        if let Some(path) = &self.file {
            builder = builder.with_file(path);
        }
        if !self.pooling.is_empty() {
            builder = builder.with_pooling(self.pooling.iter().copied());
        }
        if let Some(normalization) = self.normalize {
            builder = builder.with_normalization(normalization);
        }
        if let Some(tokens) = self.max_tokens {
            builder = builder.with_max_tokens(tokens.get());
        }
        let precision = match self.precision {
            PrecisionArg::Full => Precision::Full,
            PrecisionArg::Int8 => Precision::Int8,
        };
        if let Some(bits) = self.weight_bits {
            builder = builder.with_weight_bits(bits);
        }
        builder.with_devices(self.device.iter().copied()).with_precision(precision)
    }
}
