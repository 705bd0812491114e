//! tcc
