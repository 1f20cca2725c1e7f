//! cuBLASLt in one context: its handle, and its choices for the products of plans.

use super::calls::{Calls, Context, DenseChoice, DenseHandle, Stream, within};
use super::error::DriverError;
use crate::launch::dense::{DenseError, DenseLibrary, DenseOperands, DenseProduct};
use core::ffi::c_void;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// cuBLASLt in a context. Handle and choices stay until the process ends: there is a choice for each size and layout of a product.
#[derive(Debug)]
pub(super) struct CublasLt<C> {
    calls: Arc<C>,
    context: Context,
    known: Mutex<Known>,
}

/// What has been asked of the library. Failures are not kept: memory that is missing now may be there later.
#[derive(Debug, Default)]
struct Known {
    /// Made when a plan first asks: loading the library takes its time.
    handle: Option<DenseHandle>,
    choices: HashMap<DenseProduct, DenseChoice>,
}

impl<C: Calls> CublasLt<C> {
    pub(super) fn new(calls: Arc<C>, context: Context) -> Self {
        Self { calls, context, known: Mutex::default() }
    }

    /// The handle and the choice for a product. The context is current.
    fn choice(&self, product: &DenseProduct) -> Result<(DenseHandle, DenseChoice), DenseError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = match known.handle {
            Some(handle) => handle,
            None => *known.handle.insert(self.calls.dense_create()?),
        };
        let choice = match known.choices.get(product) {
            Some(choice) => *choice,
            None => *known.choices.entry(*product).or_insert(self.calls.dense_choose(handle, product)?),
        };
        Ok((handle, choice))
    }
}

impl<C: Calls> DenseLibrary for CublasLt<C> {
    fn prepare(&self, product: &DenseProduct) -> Result<(), DenseError> {
        let chosen = within(&*self.calls, self.context, || self.choice(product).map_err(DriverError::Dense));
        match chosen {
            Ok(_) => Ok(()),
            Err(DriverError::Dense(error)) => Err(error),
            Err(error) => Err(DenseError::Driver(error.to_string())),
        }
    }

    unsafe fn multiply(
        &self,
        product: &DenseProduct,
        operands: &DenseOperands,
        stream: *mut c_void,
    ) -> Result<(), DenseError> {
        let (handle, choice) = self.choice(product)?;
        // SAFETY: the caller's promise; the choice is this product's.
        unsafe { self.calls.dense_multiply(handle, &choice, operands, Stream(stream)) }
    }
}
