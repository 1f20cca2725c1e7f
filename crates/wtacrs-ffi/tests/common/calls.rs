//! Calls of the C interface from Rust: handles that tests begin with, statuses that must be OK, and DLPack tensors.
#![allow(dead_code, unreachable_pub)]

use std::ffi::c_void;
use std::ptr::null_mut;
use wtacrs::context::{wtacrs_context, wtacrs_context_create};
use wtacrs::dlpack::{wtacrs_dldatatype, wtacrs_dldevice, wtacrs_dltensor};
use wtacrs::dtype::*;
use wtacrs::layer::*;
use wtacrs::plan::*;
use wtacrs::status::*;
use wtacrs::tensor_mul::*;

pub const TOKENS: usize = 200;
pub const IN: usize = 40;
pub const OUT: usize = 24;
/// Batch, heads, rows, inner, columns.
pub const PRODUCT: [usize; 5] = [2, 3, 24, 8, 18];

#[track_caller]
pub fn check(status: i32) {
    assert_eq!(status, WTACRS_OK, "{}", last_error());
}

pub fn last_error() -> String {
    let mut words = [0_u8; 512];
    // SAFETY: room for so many bytes.
    unsafe { wtacrs_last_error(words.as_mut_ptr().cast(), words.len(), null_mut()) };
    let end = words.iter().position(|&byte| byte == 0).expect("a NUL");
    String::from_utf8_lossy(&words[..end]).into_owned()
}

pub fn context(device: i32, ordinal: i32) -> *mut wtacrs_context {
    let mut context = null_mut();
    // SAFETY: an output of one pointer.
    check(unsafe { wtacrs_context_create(device, ordinal, &mut context) });
    context
}

/// A plan with its sizes: saved memory, scratch of both passes.
pub fn plan(context: *const wtacrs_context, source: i32, dtype: i32, precision: i32) -> (*mut wtacrs_plan, [usize; 3]) {
    plan_further(context, source, dtype, precision, std::ptr::null())
}

/// The same with a number that passes add to their offset.
pub fn plan_further(
    context: *const wtacrs_context,
    source: i32,
    dtype: i32,
    precision: i32,
    further: *const u64,
) -> (*mut wtacrs_plan, [usize; 3]) {
    let (mut layer, mut plan, mut sizes) = (null_mut(), null_mut(), [0; 3]);
    // SAFETY: every pointer is to memory that lives until the call returns.
    unsafe {
        check(wtacrs_layer_create(&mut layer));
        check(wtacrs_layer_set_shape(layer, TOKENS, IN, OUT));
        check(wtacrs_layer_set_dtypes(layer, dtype, dtype, WTACRS_F32));
        check(wtacrs_layer_set_budget_fraction(layer, 0.3));
        check(wtacrs_layer_set_source(layer, source));
        check(wtacrs_layer_set_precision(layer, precision));
        check(wtacrs_layer_set_further_offset(layer, further));
        check(wtacrs_plan_create(context, layer, &mut plan));
        check(wtacrs_layer_destroy(layer));
        check(wtacrs_plan_saved_bytes(plan, &mut sizes[0]));
        check(wtacrs_plan_forward_scratch_bytes(plan, &mut sizes[1]));
        check(wtacrs_plan_backward_scratch_bytes(plan, &mut sizes[2]));
    }
    (plan, sizes)
}

/// A batched product's plan, sampled on both sides, with its sizes likewise.
pub fn product(context: *const wtacrs_context) -> (*mut wtacrs_tensor_mul_plan, [usize; 3]) {
    let (mut product, mut plan, mut sizes) = (null_mut(), null_mut(), [0; 3]);
    let [batch, heads, rows, inner, columns] = PRODUCT;
    let [saved, forward, backward] = &mut sizes;
    // SAFETY: every pointer is to memory that lives until the call returns.
    unsafe {
        check(wtacrs_tensor_mul_create(&mut product));
        check(wtacrs_tensor_mul_set_shape(product, batch, heads, rows, inner, columns));
        check(wtacrs_tensor_mul_set_budget_rows(product, WTACRS_LEFT, 7));
        check(wtacrs_tensor_mul_set_budget_rows(product, WTACRS_RIGHT, 9));
        check(wtacrs_tensor_mul_plan_create(context, product, &mut plan));
        check(wtacrs_tensor_mul_destroy(product));
        check(wtacrs_tensor_mul_plan_memory(plan, saved, forward, backward, null_mut()));
    }
    (plan, sizes)
}

/// A tensor of floats without gaps, or with strides; what it points to lives as long as it does.
pub struct Floats {
    tensor: wtacrs_dltensor,
    _sizes: Vec<i64>,
}

impl Floats {
    pub fn new<T>(device: (i32, i32), at: *mut T, shape: &[usize], strides: Option<&[usize]>) -> Self {
        let all = shape.iter().chain(strides.unwrap_or_default());
        let mut sizes: Vec<i64> = all.map(|&size| size as i64).collect();
        let tensor = wtacrs_dltensor {
            data: at.cast::<c_void>(),
            device: wtacrs_dldevice { device_type: device.0, device_id: device.1 },
            ndim: shape.len() as i32,
            dtype: wtacrs_dldatatype { code: 2, bits: 32, lanes: 1 },
            shape: sizes.as_mut_ptr(),
            strides: strides.map_or(null_mut(), |_| sizes[shape.len()..].as_mut_ptr()),
            byte_offset: 0,
        };
        Self { tensor, _sizes: sizes }
    }

    pub fn pointer(&self) -> *const wtacrs_dltensor {
        &raw const self.tensor
    }
}
