//! Reads Parquet files in a place to which others may write: no footer and no page header makes it allocate more than their
//! bytes allow, and no damage ends the process.
//!
//! | part | module |
//! |---|---|
//! | a footer, read without the rest of the file | `footer` |
//! | its shape, checked before it is parsed | `shape` |
//! | rows, a bounded number at a time | `decode` |
//! | headers of pages, checked before their pages are decoded | `pages` |

mod decode;
mod footer;
mod pages;
mod shape;

pub use decode::{Decoder, REPEATED_BYTES, Rows, metadata_of, plain_metadata_of};
pub use footer::{Footer, FooterError, read_range};
#[doc(hidden)]
pub use pages::check as check_pages;
