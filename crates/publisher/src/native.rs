//! What librdkafka gives and takes, for requests that rdkafka does not have.

use std::{ffi::CStr, ptr::NonNull, time::Duration};

/// For librdkafka, which counts in these.
pub(crate) fn milliseconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

/// A text that librdkafka owns; none for none.
///
/// # Safety
/// It is null, or ends with a null byte and is alive.
pub(crate) unsafe fn owned_text(text: *const std::ffi::c_char) -> Option<String> {
    // SAFETY: what the caller says.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// What is to be given back to librdkafka.
pub(crate) struct Owned<T> {
    pointer: NonNull<T>,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    /// None for null.
    ///
    /// # Safety
    /// `destroy` is for what the pointer came from, and nobody else calls it.
    pub(crate) unsafe fn new(pointer: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        Some(Self { pointer: NonNull::new(pointer)?, destroy })
    }

    pub(crate) fn get(&self) -> *mut T {
        self.pointer.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: see `new`.
        unsafe { (self.destroy)(self.pointer.as_ptr()) }
    }
}
