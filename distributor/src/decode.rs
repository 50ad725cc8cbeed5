//! Rows of data files to which others may have written.

#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;

pub(crate) use parquet_guard::Decoder;
