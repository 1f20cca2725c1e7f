//! Products by the vendor's library: the results of this library's kernels, up to the order of sums, and the calls that make
//! them.

use crate::common::{Machine, for_each_machine};
use crate::fake::{Call, Fake};
use crate::matrices::{made_up, relative_error};
use crate::steps::{Data, Given, Outcome, run, run_columns};
use half::{bf16, f16};
use std::num::NonZeroU32;
use std::ptr;
use std::sync::Arc;
use wtacrs_core::product::{Packing, Update};
use wtacrs_core::sampling::Keep;
use wtacrs_core::sampling::design::BuiltIn;
use wtacrs_kernels::device::Device;
use wtacrs_kernels::launch::LaunchList;
use wtacrs_kernels::launch::driver::{Context, Driver, DriverError, Installation, Stream};
use wtacrs_kernels::plan::{
    BackwardBuffers, DataType, DeviceRandomness, Engine, ExecuteError, LinearPlan, LinearSettings, MatmulPlan,
    MatmulSettings, Memory, Precision, Spacing, Strides, WeightSource,
};

/// Asserts that only the order of sums differs: ‖found − expected‖ ≤ bound · ‖expected‖, Frobenius.
fn assert_alike(found: &[Outcome], expected: &[Outcome], bound: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!((found.count, &found.indices, &found.scales), (expected.count, &expected.indices, &expected.scales));
        assert_eq!(found.bias, expected.bias, "{what}");
        let is_close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b;
        assert!(found.dz_norms.iter().zip(&expected.dz_norms).all(is_close), "{what}");
        let error = relative_error(&found.dw, &expected.dw);
        assert!(error <= bound, "{what}: {error}");
    }
}

/// A layer by both engines.
fn check<T: Data>(machine: &mut Machine, settings: &LinearSettings, old_dw: f32, bound: f64) {
    let &LinearSettings { batch, tokens, in_features, out_features, .. } = settings;
    let mut settings = settings.clone().of_type(T::TYPE);
    settings.weight_gradient = DataType::F32;
    let elements = |strides: Option<Strides>, columns| match strides {
        Some(Strides { matrices, .. }) => (batch, matrices.sample as usize),
        None => (batch * tokens, columns),
    };
    let (rows, columns) = elements(settings.input_strides, in_features);
    let h = made_up(rows, columns, 1).mapv(T::from_number);
    let (rows, columns) = elements(settings.gradient_strides, out_features);
    let dz = made_up(rows, columns, 2).mapv(T::from_number);
    let guess = vec![1.0; batch * tokens];
    let mut given = Given::new(h.view(), dz.view(), &guess, DeviceRandomness::new(7, 3));
    given.old_dw = old_dw;
    let mut by = |engine| {
        settings.engine = engine;
        let plan = LinearPlan::new(settings.clone(), machine.device()).expect("valid");
        assert_eq!(plan.engine(), engine);
        run(machine, &plan, &given)
    };
    let (own, found) = (by(Engine::Own), by(Engine::CublasLt));
    let what = format!("{machine:?}, {:?}, {settings:?}", T::TYPE);
    assert_alike(&found, &own, bound, &what);
    let bits = |of: &Outcome| of.dw_between.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert!(found.iter().zip(&own).all(|(found, own)| bits(found) == bits(own)), "{what}: only dW is written");
}

#[test]
fn layers() {
    for_each_machine(|machine| {
        if !machine.has_cublas_lt() {
            return;
        }
        let mut settings = LinearSettings::new(90, 37, 21, Keep::Rows(33));
        settings.bias_gradient = true;
        check::<f32>(machine, &settings, 0.0, 1e-6);
        check::<bf16>(machine, &settings, 2.5, 1e-6);
        check::<f16>(machine, &settings, 0.0, 1e-6);
        settings.precision = Precision::Tf32;
        check::<f32>(machine, &settings, 2.5, 2e-3);
        settings.precision = Precision::Exact;
        // With replacement fewer rows are kept than there is room for; weights of zero are never drawn.
        settings.design = BuiltIn::Crs;
        settings.weights = WeightSource::Norms;
        check::<bf16>(machine, &settings, 0.0, 1e-6);
        settings.batch = 3;
        settings.input_strides = Some(Strides::even(41, 90 * 41 + 5));
        settings.gradient_strides = Some(Strides::even(21, 90 * 21 + 1));
        settings.weight_gradient_strides = Some(Strides::even(23, 37 * 23 + 3));
        check::<f32>(machine, &settings, 2.5, 1e-6);
        check::<bf16>(machine, &settings, 0.0, 1e-6);
    });
}

#[test]
fn packed_layers() {
    for_each_machine(|machine| {
        if !machine.has_cublas_lt() {
            return;
        }
        for (rows, packing, old_dw) in [(17, Packing::Bits4, 0.0), (50, Packing::Bits4, 1.5), (50, Packing::Bits2, 0.0)]
        {
            let mut settings = LinearSettings::new(50, 150, 40, Keep::Rows(rows));
            settings.packing = packing;
            settings.bias_gradient = true;
            check::<f32>(machine, &settings, old_dw, 1e-6);
            settings.batch = 2;
            check::<bf16>(machine, &settings, old_dw, 1e-6);
        }
    });
}

/// Both gradients, of heads that lie between one another: samples are then no strided batch, and the second is less aligned.
#[test]
fn attention_between_other_heads() {
    const SIZES: [usize; 5] = [2, 3, 40, 16, 24];
    let [batch, heads, rows, inner, columns] = SIZES;
    let strides = |columns: usize, rows: usize| Strides {
        row: heads * columns,
        matrices: Spacing {
            sample: (rows * heads * columns + 1) as u64,
            head: columns as u64,
            heads: NonZeroU32::new(heads as u32).expect("not 0"),
        },
    };
    let buffer = |rows: usize, columns: usize, seed| made_up(batch, rows * heads * columns + 1, seed);
    let (a, b, g) = (buffer(rows, inner, 1), buffer(columns, inner, 2), buffer(rows, columns, 3));
    for_each_machine(|machine| {
        if !machine.has_cublas_lt() {
            return;
        }
        for packing in [Packing::Native, Packing::Bits4] {
            let mut by = |engine| {
                let mut settings = MatmulSettings::new(SIZES);
                (settings.input, settings.gradient) = (DataType::F32, DataType::F32);
                (settings.left, settings.right) = (Some(Keep::Rows(9)), Some(Keep::Rows(11)));
                settings.packing = packing;
                settings.engine = engine;
                settings.a_strides = Some(strides(inner, rows));
                settings.b_transposed_strides = Some(strides(inner, columns));
                settings.gradient_strides = Some(strides(columns, rows));
                settings.da_strides = Some(strides(inner, rows));
                settings.db_strides = Some(strides(columns, inner));
                let plan = MatmulPlan::new(&settings, machine.device()).expect("valid");
                let randomness = DeviceRandomness::new(8, 64);
                let (right, left) = (plan.right().expect("sampled"), plan.left().expect("sampled"));
                assert_eq!((left.engine(), right.engine()), (engine, engine));
                let of_right = run(machine, right, &Given::new(a.view(), g.view(), &[], randomness));
                let given = Given::new(b.view(), g.view(), &[], randomness);
                let items = [batch * heads, columns, rows, inner];
                (of_right, run_columns(machine, left, &given, items, settings.da_strides))
            };
            let (own, found) = (by(Engine::Own), by(Engine::CublasLt));
            assert_alike(&found.0, &own.0, 1e-6, &format!("{machine:?}, {packing}, dB"));
            assert_alike(&found.1, &own.1, 1e-6, &format!("{machine:?}, {packing}, dA"));
        }
    });
}

fn at(address: usize) -> *mut u8 {
    ptr::without_provenance_mut(address)
}

fn backward_buffers() -> BackwardBuffers {
    let anywhere = Memory { at: at(1 << 20), bytes: u64::MAX };
    BackwardBuffers {
        saved: anywhere,
        gradient: at(1 << 21),
        gradient_norms: ptr::null_mut(),
        weight_gradient: at(1 << 22),
        bias_gradient: ptr::null_mut(),
        update: Update::Accumulate,
        scratch: anywhere,
    }
}

fn opened(fake: Fake) -> Driver<Fake> {
    Driver::open_with(Arc::new(Installation::new(fake).expect("it will do")), 0).expect("opens")
}

/// The library is loaded, and chooses, when a plan is made. A backward pass is a gather and a product, and nothing else.
#[test]
fn a_driver_sees_a_gather_and_a_product() {
    let driver = opened(Fake::default());
    let calls = Fake::of(&driver);
    calls.forget();
    let mut settings = LinearSettings::new(1000, 96, 64, Keep::Fraction(0.3));
    settings.engine = Engine::CublasLt;
    // The caller's thread has another context.
    calls.enter(Context(0x77), 5);
    let plan = LinearPlan::new(settings, driver.device()).expect("valid");
    let made: Vec<Call> = calls.list().into_iter().filter(|call| !matches!(call, Call::Ask(_))).collect();
    let (own, callers) = (Call::SetCurrent(driver.context()), Call::SetCurrent(Context(0x77)));
    assert!(matches!(&made[..], [a, Call::Create(_), Call::Choose(_), b] if (a, b) == (&own, &callers)), "{made:?}");
    let Call::Choose(product) = made[2] else { unreachable!() };
    assert_eq!((product.batch, product.rows, product.left, product.right), (1, 300, 96, 64));
    assert!(product.layouts.iter().all(|layout| layout.alignment == 16) && product.workspace_bytes == 4 << 20);

    let run = |plan: &LinearPlan| -> Result<Vec<Call>, ExecuteError<DriverError>> {
        calls.enter(driver.context(), 1);
        calls.forget();
        // SAFETY: the fake runs nothing, and knows no streams.
        unsafe { plan.backward(&mut driver.on(Stream(at(0x50).cast())), &backward_buffers()) }?;
        Ok(calls.list())
    };
    let multiply = Call::Multiply { stream: 0x50, accumulate: true, context: driver.context() };
    let found = run(&plan).expect("launches");
    assert!(matches!(&found[..], [Call::Launch { kernel: "gather_rows_bf16", .. }, last] if last == &multiply));
    // Other strides: the library chooses once more, and remembers.
    let strided = plan.with_strides([None, None, Some(Strides::even(65, 0))]).expect("no overlap");
    let found = run(&strided).expect("launches");
    assert!(matches!(&found[1..], [Call::Choose(_), last] if last == &multiply), "{found:?}");
    assert_eq!(run(&strided).expect("launches").len(), 2);
}

#[test]
fn where_there_is_no_library() {
    let plan = |device: &Device, engine| {
        let mut settings = LinearSettings::new(16384, 4096, 4096, Keep::Fraction(0.3));
        settings.engine = engine;
        LinearPlan::new(settings, device).map(|plan| plan.engine())
    };
    let without = opened(Fake { has_cublas_lt: false, capability: (9, 0), ..Fake::default() });
    assert_eq!(plan(without.device(), Engine::Auto), Ok(Engine::Own));
    let error = plan(without.device(), Engine::CublasLt).expect_err("must be refused");
    assert_eq!(error.to_string(), "there is no cuBLASLt on this machine (no libcublasLt.so.13, .12 or .11)");
    let nowhere = Device { dense: None, compute_capability: (9, 0), ..Device::emulated() };
    assert_eq!(plan(&nowhere, Engine::Auto), Ok(Engine::Own));
    let error = plan(&nowhere, Engine::CublasLt).expect_err("must be refused");
    assert_eq!(error.to_string(), "there is no plan for products by cuBLASLt on this device");
    let failing = |call| opened(Fake { fails: Some(call), capability: (9, 0), ..Fake::default() });
    for call in ["cublasLtCreate", "cublasLtMatmulAlgoGetHeuristic"] {
        assert_eq!(plan(failing(call).device(), Engine::Auto), Ok(Engine::Own));
        let error = plan(failing(call).device(), Engine::CublasLt).expect_err("must be refused");
        assert_eq!(error.to_string(), format!("{call} failed with CUBLAS_STATUS_FAKE (15)"));
    }
    // A product that fails is reported with its call.
    let driver = failing("cublasLtMatmul");
    let mut settings = LinearSettings::new(1000, 96, 64, Keep::Fraction(0.3));
    settings.engine = Engine::CublasLt;
    let plan = LinearPlan::new(settings, driver.device()).expect("valid");
    // SAFETY: the fake runs nothing.
    let error = unsafe { plan.backward(&mut driver.on(Stream(ptr::null_mut())), &backward_buffers()) };
    assert_eq!(error.expect_err("fails").to_string(), "cublasLtMatmul failed with CUBLAS_STATUS_FAKE (15)");
}

#[test]
fn auto_takes_the_library_where_it_gains() {
    let of = |capability, [tokens, in_features, out_features]: [usize; 3], keep, packing| {
        let driver = opened(Fake { capability, ..Fake::default() });
        let mut settings = LinearSettings::new(tokens, in_features, out_features, Keep::Fraction(keep));
        settings.packing = packing;
        LinearPlan::new(settings, driver.device()).expect("valid").engine()
    };
    let large = [16384, 4096, 4096];
    for (capability, engine) in [
        ((8, 0), Engine::Own),
        ((8, 9), Engine::Own),
        ((9, 0), Engine::CublasLt),
        ((10, 3), Engine::CublasLt),
        // Consumer GPUs, which have no other instruction than mma.
        ((12, 0), Engine::Own),
    ] {
        assert_eq!(of(capability, large, 0.3, Packing::Native), engine, "{capability:?}");
    }
    let hopper = (9, 0);
    assert_eq!(
        of(hopper, [16384, 512, 4096], 0.3, Packing::Native),
        Engine::Own,
        "the gather costs more than it gains"
    );
    assert_eq!(of(hopper, [16384, 512, 4096], 1.0, Packing::Bits4), Engine::CublasLt, "nothing is gathered");
    assert_eq!(of(hopper, [1000, 4096, 4096], 0.3, Packing::Native), Engine::Own, "few rows");
    assert_eq!(of(hopper, [16384, 1024, 512], 0.3, Packing::Native), Engine::Own, "a small product");
}

#[test]
fn what_is_launched() {
    let hopper = Device { compute_capability: (9, 0), multiprocessors: 132, ..Device::emulated() };
    let launches = |keep, packing, bias_gradient| {
        let mut settings = LinearSettings::new(16384, 4096, 4096, Keep::Fraction(keep));
        settings.packing = packing;
        settings.bias_gradient = bias_gradient;
        let plan = LinearPlan::new(settings, &hopper).expect("valid");
        let mut list = LaunchList::default();
        let anywhere = at(1 << 23).cast();
        let bias_gradient = if bias_gradient { anywhere } else { ptr::null_mut() };
        let buffers = BackwardBuffers { gradient_norms: anywhere, bias_gradient, ..backward_buffers() };
        // SAFETY: nothing is run.
        unsafe { plan.backward(&mut list, &buffers) }.expect("fits");
        list.launches().iter().map(|launch| launch.kernel).collect::<Vec<_>>()
    };
    let (reads, multiply) = ("row_norms_gather_bf16", "cublasLtMatmul");
    assert_eq!(launches(0.3, Packing::Native, false), [reads, multiply]);
    assert_eq!(launches(0.3, Packing::Native, true), [reads, multiply, "split_reduce_sums"]);
    let (unpack, turn_back) = ("unpack_rows_bf16", "turn_back_down");
    assert_eq!(launches(0.3, Packing::Bits4, true), [reads, unpack, multiply, turn_back]);
    assert_eq!(launches(1.0, Packing::Bits4, true), ["row_norms_sums_bf16", unpack, multiply, turn_back]);
}

/// Of an invalid row nothing is kept, and dW is zero; if all rows are packed, it is so where dZ is finite.
#[test]
fn an_invalid_row_keeps_nothing() {
    let (mut h, dz) = (made_up(50, 16, 5), made_up(50, 16, 6));
    h[[17, 3]] = f32::NAN;
    for_each_machine(|machine| {
        if !machine.has_cublas_lt() {
            return;
        }
        for (keep, packing) in [(10, Packing::Native), (10, Packing::Bits4), (50, Packing::Bits4)] {
            for fills in [None, Some(f32::NAN)] {
                let mut settings = LinearSettings::new(50, 16, 16, Keep::Rows(keep)).of_type(DataType::F32);
                (settings.packing, settings.engine) = (packing, Engine::CublasLt);
                let plan = LinearPlan::new(settings, machine.device()).expect("valid");
                let mut dz = dz.clone();
                fills.into_iter().for_each(|value| dz.fill(value));
                let given = Given::new(h.view(), dz.view(), &[], DeviceRandomness::new(0, 0));
                let outcome = &run(machine, &plan, &given)[0];
                assert_eq!((outcome.status, outcome.count), (18, 0), "{machine:?}");
                let is_nan = plan.keeps_all() && fills.is_some();
                let is_right = |value: &f32| if is_nan { value.is_nan() } else { *value == 0.0 };
                assert!(outcome.dw.iter().all(is_right), "{machine:?}, {keep} rows, {packing}");
            }
        }
    });
}
