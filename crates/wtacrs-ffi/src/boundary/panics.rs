//! Panics of the library's own calls and threads: noted for the last error, and not printed.

use super::log::{self, LogLevelInC};
use core::cell::{Cell, RefCell};
use std::panic::{self, PanicHookInfo};
use std::sync::{Mutex, Once, PoisonError};

thread_local! {
    /// Whose code this thread runs.
    static RUNS: Cell<Code> = const { Cell::new(Code::Others) };
    /// The last such panic on this thread.
    static NOTED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The last panic on a thread of a pool, whose caller only gets the payload.
static IN_POOL: Mutex<Option<String>> = Mutex::new(None);

/// Code, by what becomes of its panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// Not the library's: the process's own hook decides.
    Others,
    /// A call of the library, which returns them as a status.
    Call,
    /// A pool of the library, which passes them on to a call.
    Pool,
}

/// Runs the library's code: its panics are noted, and logged instead of printed.
pub(crate) fn within<T>(code: Code, body: impl FnOnce() -> T) -> T {
    install();
    let _restore = Restore(RUNS.replace(code));
    body()
}

struct Restore(Code);

impl Drop for Restore {
    fn drop(&mut self) {
        RUNS.set(self.0);
    }
}

/// What is known of the panic that this thread has just caught: its words and place.
pub(crate) fn take() -> Option<String> {
    let here = NOTED.take();
    let in_pool = IN_POOL.lock().unwrap_or_else(PoisonError::into_inner).take();
    here.or(in_pool)
}

/// Puts a hook before the process's own, which keeps all other panics.
fn install() {
    static ONCE: Once = Once::new();
    // Hooks cannot be changed during a panic.
    if std::thread::panicking() {
        return;
    }
    ONCE.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| match RUNS.try_with(Cell::get).unwrap_or(Code::Others) {
            Code::Others => others(info),
            code => note(code, info),
        }));
    });
}

fn note(code: Code, info: &PanicHookInfo<'_>) {
    let words = info.payload_as_str().unwrap_or("without a message");
    let text = match info.location() {
        Some(place) => format!("panicked at {place}: {words}"),
        None => format!("panicked: {words}"),
    };
    log::write(LogLevelInC::WTACRS_LOG_LEVEL_ERROR, &text);
    match code {
        Code::Pool => *IN_POOL.lock().unwrap_or_else(PoisonError::into_inner) = Some(text),
        _ => NOTED.set(Some(text)),
    }
}
