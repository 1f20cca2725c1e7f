//! Calls of the C interface from Rust: handles that tests begin with, statuses that must be OK, memory, and DLPack tensors.
#![allow(dead_code, unreachable_pub)]

use std::ffi::c_void;
use std::ptr::{null, null_mut};
use wtacrs::*;

pub const TOKENS: usize = 200;
pub const IN: usize = 40;
pub const OUT: usize = 24;
pub const DESIGNS: [wtacrs_design; 6] = [
    WTACRS_DESIGN_UNIFORM,
    WTACRS_DESIGN_CRS,
    WTACRS_DESIGN_TOP_K,
    WTACRS_DESIGN_WTA_IID,
    WTACRS_DESIGN_WTA_STRATIFIED,
    WTACRS_DESIGN_WTA_PIVOTAL,
];
/// Batch, heads, rows, inner, columns.
pub const PRODUCT: [usize; 5] = [2, 3, 24, 8, 18];

#[track_caller]
pub fn check(status: wtacrs_status) {
    assert_eq!(status, WTACRS_STATUS_OK, "{}", last_error());
}

pub fn last_error() -> String {
    let mut words = [0_u8; 512];
    // SAFETY: room for so many bytes.
    unsafe { wtacrs_last_error(words.as_mut_ptr().cast(), words.len(), null_mut()) };
    let end = words.iter().position(|&byte| byte == 0).expect("a NUL");
    String::from_utf8_lossy(&words[..end]).into_owned()
}

pub fn context(device: wtacrs_device, ordinal: i32) -> *mut wtacrs_context {
    let mut context = null_mut();
    // SAFETY: an output of one pointer.
    check(unsafe { wtacrs_context_create(device, ordinal, null(), &mut context) });
    context
}

/// A plan of a description that `set` fills, and what it needs.
pub fn plan_with(
    context: *const wtacrs_context,
    set: impl FnOnce(*mut wtacrs_layer),
) -> (*mut wtacrs_plan, wtacrs_plan_info) {
    let (mut layer, mut plan) = (null_mut(), null_mut());
    // SAFETY: every pointer is to memory that lives until the call returns.
    unsafe {
        check(wtacrs_layer_create(&mut layer));
        set(layer);
        check(wtacrs_plan_create(context, layer, &mut plan));
        check(wtacrs_layer_destroy(layer));
    }
    (plan, plan_info(plan))
}

pub fn plan_info(plan: *const wtacrs_plan) -> wtacrs_plan_info {
    let mut info = wtacrs_plan_info { size: size_of::<wtacrs_plan_info>(), ..Default::default() };
    // SAFETY: an output of the size that it says.
    check(unsafe { wtacrs_plan_get_info(plan, &mut info) });
    info
}

/// A plan for [`TOKENS`], [`IN`] and [`OUT`], and what it needs.
pub fn plan(
    context: *const wtacrs_context,
    source: wtacrs_source,
    dtype: wtacrs_dtype,
    precision: wtacrs_precision,
) -> (*mut wtacrs_plan, wtacrs_plan_info) {
    plan_further(context, source, dtype, precision, null())
}

/// The same with a number that passes add to their offset.
pub fn plan_further(
    context: *const wtacrs_context,
    source: wtacrs_source,
    dtype: wtacrs_dtype,
    precision: wtacrs_precision,
    further: *const u64,
) -> (*mut wtacrs_plan, wtacrs_plan_info) {
    // SAFETY: the number lives as long as the caller's plan.
    plan_with(context, |layer| unsafe {
        check(wtacrs_layer_set_shape(layer, TOKENS, IN, OUT));
        check(wtacrs_layer_set_dtypes(layer, dtype, dtype, WTACRS_DTYPE_F32));
        check(wtacrs_layer_set_budget(layer, WTACRS_BUDGET_FRACTION, 0.3));
        check(wtacrs_layer_set_source(layer, source, 0.01));
        check(wtacrs_layer_set_precision(layer, precision));
        check(wtacrs_layer_set_further_offset(layer, further));
    })
}

/// A batched product's plan of a description that `set` fills, and what it needs.
pub fn product_with(
    context: *const wtacrs_context,
    set: impl FnOnce(*mut wtacrs_tensor_mul),
) -> (*mut wtacrs_tensor_mul_plan, wtacrs_tensor_mul_plan_info) {
    let (mut product, mut plan) = (null_mut(), null_mut());
    // SAFETY: every pointer is to memory that lives until the call returns.
    unsafe {
        check(wtacrs_tensor_mul_create(&mut product));
        set(product);
        check(wtacrs_tensor_mul_plan_create(context, product, &mut plan));
        check(wtacrs_tensor_mul_destroy(product));
    }
    (plan, product_info(plan))
}

pub fn product_info(plan: *const wtacrs_tensor_mul_plan) -> wtacrs_tensor_mul_plan_info {
    let mut info = wtacrs_tensor_mul_plan_info { size: size_of::<wtacrs_tensor_mul_plan_info>(), ..Default::default() };
    // SAFETY: an output of the size that it says.
    check(unsafe { wtacrs_tensor_mul_plan_get_info(plan, &mut info) });
    info
}

/// A batched product's plan for [`PRODUCT`], sampled on both sides, and what it needs.
pub fn product(context: *const wtacrs_context) -> (*mut wtacrs_tensor_mul_plan, wtacrs_tensor_mul_plan_info) {
    let [batch, heads, rows, inner, columns] = PRODUCT;
    // SAFETY: a handle is never followed.
    product_with(context, |product| unsafe {
        check(wtacrs_tensor_mul_set_shape(product, batch, heads, rows, inner, columns));
        check(wtacrs_tensor_mul_set_budget(product, WTACRS_SIDE_LEFT, WTACRS_BUDGET_ROWS, 7.0));
        check(wtacrs_tensor_mul_set_budget(product, WTACRS_SIDE_RIGHT, WTACRS_BUDGET_ROWS, 9.0));
    })
}

/// An operator's plan of a description that `set` fills, and what it needs.
pub fn operator_with(
    context: *const wtacrs_context,
    set: impl FnOnce(*mut wtacrs_operator),
) -> (*mut wtacrs_operator_plan, wtacrs_operator_plan_info) {
    let (mut op, mut plan) = (null_mut(), null_mut());
    let mut info = wtacrs_operator_plan_info { size: size_of::<wtacrs_operator_plan_info>(), ..Default::default() };
    // SAFETY: every pointer is to memory that lives until the call returns.
    unsafe {
        check(wtacrs_operator_create(&mut op));
        set(op);
        check(wtacrs_operator_plan_create(context, op, &mut plan));
        check(wtacrs_operator_destroy(op));
        check(wtacrs_operator_plan_get_info(plan, &mut info));
    }
    (plan, info)
}

/// A predictor with default settings.
pub fn predictor(context: *const wtacrs_context, in_features: usize) -> *mut wtacrs_norm_predictor {
    let mut predictor = null_mut();
    // SAFETY: an output of one pointer.
    check(unsafe { wtacrs_norm_predictor_create(context, in_features, null(), &mut predictor) });
    predictor
}

/// A predictor as bytes.
pub fn predictor_bytes(predictor: *const wtacrs_norm_predictor) -> Vec<u8> {
    let mut needed = 0;
    // SAFETY: an output of one number, and a buffer of the size that was asked for.
    unsafe {
        check(wtacrs_norm_predictor_save(predictor, null_mut(), 0, &mut needed));
        let mut bytes = vec![0_u8; needed];
        check(wtacrs_norm_predictor_save(predictor, bytes.as_mut_ptr().cast(), needed, &mut needed));
        bytes
    }
}

/// What came of a predictor's last step, without the row.
pub fn predictor_outcome(predictor: *const wtacrs_norm_predictor) -> u32 {
    let mut outcome = u32::MAX;
    // SAFETY: an output of one number.
    check(unsafe { wtacrs_norm_predictor_outcome(predictor, &mut outcome, null_mut()) });
    outcome
}

/// Options of a forward pass that has a guess, a predictor, both or neither.
pub fn forward_options(guess: *const f32, predictor: *const wtacrs_norm_predictor) -> wtacrs_forward_options {
    wtacrs_forward_options { guess, predictor, ..Default::default() }
}

/// Options of a backward pass.
pub fn backward_options(accumulate: i32, dz_norms: *mut f32, bias_gradient: *mut c_void) -> wtacrs_backward_options {
    wtacrs_backward_options { accumulate, dz_norms, bias_gradient, ..Default::default() }
}

/// Where a selection lies.
pub fn selection(
    indices: *mut u32,
    scales: *mut f64,
    capacity: usize,
    kept: *mut u64,
    winners: *mut u64,
) -> wtacrs_selection {
    wtacrs_selection { indices, scales, capacity, kept, winners, ..Default::default() }
}

/// Memory of the host, which is the emulator's too, aligned as plans of either require.
pub struct Memory {
    lines: Vec<Line>,
    pub bytes: usize,
}

#[repr(align(256))]
#[derive(Clone, Copy)]
struct Line([u8; 256]);

impl Memory {
    /// All of whose bytes have a value.
    pub fn filled(bytes: usize, value: u8) -> Self {
        Self { lines: vec![Line([value; 256]); bytes.div_ceil(256)], bytes }
    }

    pub fn at(&mut self) -> *mut c_void {
        self.lines.as_mut_ptr().cast()
    }

    pub fn contents(&self) -> Vec<u8> {
        let all = self.lines.iter().flat_map(|line| line.0);
        all.take(self.bytes).collect()
    }
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
