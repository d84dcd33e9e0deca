//! Writes an embedder, stacks a wrapper on it, and checks both against the laws. Offline, free.
//!
//! `cargo run --example own_embedder`

use std::fmt;

use docvector_embed::{
    Batch, Embedder, EmbedderExt, Embeddings, Limits, Normalization, Result, Space, Usage, async_trait, conformance,
};

/// Embeds a text by how often each letter occurs in it: anagrams are neighbours.
#[derive(Debug)]
struct Letters {
    space: Space,
}

impl Letters {
    fn new() -> Result<Self> {
        // Say everything that two vectors must share to be comparable.
        let space =
            Space::builder("letter-counts", 26).with_revision("1").with_normalization(Normalization::L2).build()?;
        Ok(Self { space })
    }

    fn vector(text: &str) -> Vec<f32> {
        let mut counts = [0.0_f32; 26];
        for letter in text.bytes().filter(u8::is_ascii_alphabetic) {
            counts[usize::from(letter.to_ascii_lowercase() - b'a')] += 1.0;
        }
        let length = counts.iter().map(|count| count * count).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
        counts.iter().map(|count| count / length).collect()
    }
}

impl fmt::Display for Letters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("letters")
    }
}

#[async_trait]
impl Embedder for Letters {
    async fn embed(&self, batch: Batch<'_>) -> Result<Embeddings> {
        // Refuses unknown spaces and empty texts, and names all of the texts.
        batch.check(self.spaces(), &self.limits())?;
        if batch.is_empty() {
            return Ok(Embeddings::empty(&self.space));
        }
        let components = batch.texts().iter().flat_map(|text| Self::vector(text)).collect();
        Embeddings::new(batch.len(), &self.space, components, Usage::of_request(None))
    }

    fn spaces(&self) -> &[Space] {
        std::slice::from_ref(&self.space)
    }

    fn limits(&self) -> Limits {
        Limits::none().with_texts(100)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let letters = Letters::new()?;
    conformance::Suite::new(&letters).run().await?;
    println!("{letters} keeps the laws");

    let stack = letters.dedup();
    conformance::Suite::new(&stack).run().await?;
    println!("{stack} keeps the laws");

    let rows = stack.embed_documents(&["listen", "silent", "noise"]).await?;
    for other in 1..rows.len() {
        let cosine: f32 = rows.row(0).iter().zip(rows.row(other)).map(|(a, b)| a * b).sum();
        println!("cosine of text 0 and text {other}: {cosine:.3}");
    }
    Ok(())
}
