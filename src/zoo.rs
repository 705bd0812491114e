//! The bug zoo: errors planted on purpose, to see that `simulate/` finds them. Each is a fault that somebody could make
//! here in good faith. Without the feature `zoo` there are none; with it there are none either, until a simulation turns
//! one on for its own thread.

#[cfg(feature = "zoo")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<&'static str>> = const { std::cell::Cell::new(None) };
}

/// Is this error planted?
#[inline(always)]
pub fn planted(name: &'static str) -> bool {
    #[cfg(feature = "zoo")]
    return PLANTED.get() == Some(name);
    #[cfg(not(feature = "zoo"))]
    {
        let _ = name;
        false
    }
}

/// Plants an error in this thread, or none.
#[cfg(feature = "zoo")]
pub fn plant(name: Option<&'static str>) {
    PLANTED.set(name);
}
