//! A text's kernels, and their launches on the emulator.

use crate::error::{LaunchError, ReadError};
use crate::instruction::Entry;
use crate::parse;
use crate::thread::{self, Arguments};
use crate::traffic::{Meter, Traffic};
use std::collections::BTreeMap;
use wtacrs_simt::emulator::{self, Launch};

/// The kernels of a text.
#[derive(Debug)]
pub struct Module {
    entries: BTreeMap<String, Entry>,
}

impl Module {
    /// Reads a text.
    ///
    /// # Errors
    ///
    /// The first statement that is not understood.
    pub fn read(text: &str) -> Result<Self, ReadError> {
        Ok(Self { entries: parse::entries(text)? })
    }

    /// How many instructions a kernel has; nothing if there is no such kernel.
    pub fn instructions(&self, entry: &str) -> Option<usize> {
        self.entries.get(entry).map(|kernel| kernel.instructions.len())
    }

    /// Runs a kernel on the emulator.
    ///
    /// # Errors
    ///
    /// A launch that does not fit the kernel, or a mistake that the emulator finds.
    ///
    /// # Safety
    ///
    /// `arguments` is what the kernel takes by value, laid out as in C, and keeps the promises that it asks for: its
    /// pointers lead to memory of this process.
    pub unsafe fn launch<A: Copy>(&self, entry: &str, shape: Launch, arguments: &A) -> Result<(), LaunchError> {
        // SAFETY: the caller's promise.
        unsafe { self.run(entry, shape, arguments, None) }
    }

    /// The same, and what the launch has asked of global memory. Each access takes several times as long.
    ///
    /// # Errors
    ///
    /// As for [`Self::launch`].
    ///
    /// # Safety
    ///
    /// As for [`Self::launch`].
    pub unsafe fn measure<A: Copy>(&self, entry: &str, shape: Launch, arguments: &A) -> Result<Traffic, LaunchError> {
        let kernel = self.entries.get(entry).ok_or_else(|| LaunchError::NoEntry(entry.into()))?;
        let meter = Meter::new(kernel);
        // SAFETY: the caller's promise.
        unsafe { self.run(entry, shape, arguments, Some(&meter)) }?;
        Ok(meter.traffic())
    }

    /// # Safety
    ///
    /// As for [`Self::launch`].
    unsafe fn run<A: Copy>(
        &self,
        entry: &str,
        shape: Launch,
        arguments: &A,
        meter: Option<&Meter>,
    ) -> Result<(), LaunchError> {
        let kernel = self.entries.get(entry).ok_or_else(|| LaunchError::NoEntry(entry.into()))?;
        let (expected, found) = (kernel.parameter_bytes, size_of::<A>());
        if expected != found {
            return Err(LaunchError::Arguments { entry: entry.into(), expected, found });
        }
        if shape.block > kernel.most_threads {
            return Err(LaunchError::Threads { entry: entry.into(), most: kernel.most_threads, found: shape.block });
        }
        let arguments = Arguments::new(arguments);
        // SAFETY: the caller's promise is the kernel's.
        emulator::launch(shape, &|| unsafe { thread::run(kernel, shape.shared_bytes, arguments, meter) })?;
        Ok(())
    }
}
