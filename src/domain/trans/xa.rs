//! xa
