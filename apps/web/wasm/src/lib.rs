//! The Rust SDK as the web app sees it: one class, whose values cross as JSON. It translates, and decides nothing.

#[cfg(target_family = "wasm")]
mod page;
#[cfg(test)]
mod types;
#[cfg(any(test, target_family = "wasm"))]
mod wire;

#[cfg(target_family = "wasm")]
pub use page::Jiscord;
