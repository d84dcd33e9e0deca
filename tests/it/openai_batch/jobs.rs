//! Jobs as their owners see them: submitted, attached to, listed, removed, and handed to others.

mod attached;
mod cached;
mod listed;
mod submitted;
