//! Plans without running them: sizes, launches, and what is refused. That nothing but these launches happens is shown on
//! a driver that writes every call down.

use crate::fake::{Call, Fake};
use std::num::NonZeroU32;
use std::ptr;
use std::sync::Arc;
use wtacrs_core::guesses::PredictorSettings;
use wtacrs_core::product::{Packing, Update};
use wtacrs_core::sampling::design::{BuiltIn, Design};
use wtacrs_core::sampling::{BudgetError, Keep};
use wtacrs_kernels::device::Device;
use wtacrs_kernels::kernel::predictor_update::MOST_FEATURES;
use wtacrs_kernels::launch::driver::{Driver, Installation, Stream};
use wtacrs_kernels::launch::{LaunchList, Launcher, Shape};
use wtacrs_kernels::plan::{
    ALIGNMENT, BackwardBuffers, DataType, DeviceRandomness, ExecuteError, ForwardBuffers, LinearPlan, LinearSettings,
    MatmulPlan, MatmulSettings, Matrix, Memory, PlanError, PredictorPlan, SelectBuffers, Spacing, Strides,
    UpdateBuffers, WeightSource, launch_row_norms,
};

const SOURCES: [WeightSource; 4] = [
    WeightSource::Input,
    WeightSource::Norms,
    WeightSource::Cached { mix: 0.01 },
    WeightSource::Predicted { clamp: 6.0 },
];

fn h100() -> Device {
    Device { multiprocessors: 132, ..Device::emulated() }
}

fn settings(tokens: usize, in_features: usize, out_features: usize) -> LinearSettings {
    LinearSettings::new(tokens, in_features, out_features, Keep::Fraction(0.25))
}

/// Memory that is never touched.
fn anywhere() -> Memory {
    Memory { at: ptr::without_provenance_mut(1 << 20), bytes: 1 << 40 }
}

fn forward_buffers() -> ForwardBuffers {
    let memory = anywhere();
    ForwardBuffers {
        input: memory.at,
        guess: memory.at.cast(),
        placement: memory.at.cast(),
        cached: ptr::null(),
        saved: memory,
        scratch: memory,
    }
}

fn backward_buffers() -> BackwardBuffers {
    let memory = anywhere();
    BackwardBuffers {
        saved: memory,
        gradient: memory.at,
        gradient_norms: memory.at.cast(),
        weight_gradient: memory.at,
        bias_gradient: ptr::null_mut(),
        update: Update::Overwrite,
        scratch: memory,
    }
}

fn update_buffers() -> UpdateBuffers {
    let memory = anywhere();
    UpdateBuffers {
        saved: memory,
        gradient_norms: memory.at.cast(),
        cached_norms: std::ptr::null(),
        state: memory,
        sums: memory,
        status: memory.at.cast(),
        scratch: memory,
    }
}

/// A whole step: forward, backward, and the predictor's update. How many launches each has.
fn step<L: Launcher>(plan: &LinearPlan, launcher: &mut L) -> Result<(), ExecuteError<L::Error>> {
    let predictor = PredictorPlan::new(plan, PredictorSettings::default()).expect("valid");
    // SAFETY: no launcher here runs anything.
    unsafe {
        plan.forward(launcher, &forward_buffers(), DeviceRandomness::new(1, 2))?;
        plan.backward(launcher, &backward_buffers())?;
        predictor.update(launcher, &update_buffers())
    }
}

/// What the names of kernels end in that read rows of so many columns, side by side from an aligned address on.
fn suffix(columns: usize, data_type: DataType) -> &'static str {
    if (columns as u64 * data_type.bytes()).is_multiple_of(16) { "" } else { "_any" }
}

fn names(list: &LaunchList) -> Vec<&'static str> {
    list.launches().iter().map(|launch| launch.kernel).collect()
}

#[test]
fn three_launches_forward_and_at_most_three_backward() {
    let sizes = [(1, 1, 1), (7, 3, 5), (4096, 1024, 1024), (65_536, 4096, 16_384), (200_000, 64, 64), (64, 70_000, 9)];
    for (tokens, in_features, out_features) in sizes {
        for weights in SOURCES {
            for data_type in [DataType::F32, DataType::F16, DataType::Bf16] {
                let mut settings = settings(tokens, in_features, out_features);
                settings.weights = weights;
                let plan = LinearPlan::new(settings.of_type(data_type), &h100()).expect("valid");
                let mut list = LaunchList::default();
                // SAFETY: nothing runs.
                unsafe { plan.forward(&mut list, &forward_buffers(), DeviceRandomness::new(1, 2)) }.expect("fits");
                let by_input = suffix(in_features, data_type);
                let forward = [
                    format!("row_norms_{data_type}{by_input}"),
                    "select_wta_pivotal".to_owned(),
                    format!("gather_rows_{data_type}{by_input}"),
                ];
                assert_eq!(names(&list), forward);

                let mut list = LaunchList::default();
                // SAFETY: as above.
                unsafe { plan.backward(&mut list, &backward_buffers()) }.expect("fits");
                let found = names(&list);
                assert_eq!(found[0], format!("row_norms_{data_type}{}", suffix(out_features, data_type)));
                assert!(found[1].starts_with("gather_gemm_"), "{found:?}");
                assert_eq!(&found[2..], if plan.splits() > 1 { vec!["split_reduce"] } else { vec![] });
                let silent = BackwardBuffers { gradient_norms: ptr::null_mut(), ..backward_buffers() };
                let mut fewer = LaunchList::default();
                // SAFETY: as above.
                unsafe { plan.backward(&mut fewer, &silent) }.expect("fits");
                assert_eq!(fewer.launches(), &list.launches()[1..]);
                let mut bias = plan.settings().clone();
                bias.bias_gradient = true;
                let bias = LinearPlan::new(bias, &h100()).expect("valid");
                let mut with_bias = LaunchList::default();
                let wanted = BackwardBuffers { bias_gradient: anywhere().at.cast(), ..backward_buffers() };
                // SAFETY: as above.
                unsafe { bias.backward(&mut with_bias, &wanted) }.expect("fits");
                let last = ["split_reduce_sums"];
                assert_eq!(
                    names(&with_bias),
                    [&[&*format!("row_norms_sums_{data_type}"), found[1]], &last[..]].concat()
                );
                assert!(bias.backward_scratch_bytes() > plan.backward_scratch_bytes());
                for shape in list.launches().iter().chain(with_bias.launches()).map(|launch| launch.shape) {
                    assert_fits(shape, &h100());
                }
            }
        }
    }
    // Few tokens and features leave most multiprocessors idle, unless the sum is cut.
    assert!(LinearPlan::new(settings(65_536, 256, 256), &h100()).expect("valid").splits() > 1);
}

/// Packed rows: three launches forward, one if all rows are packed; four backward at most.
#[test]
fn packed_rows_launch_no_more() {
    let sizes = [(1, 1, 1), (7, 3, 5), (4096, 1024, 1024), (65_536, 4096, 16_384), (200_000, 64, 64), (64, 70_000, 9)];
    for (tokens, in_features, out_features) in sizes {
        for (packing, data_type) in
            [(Packing::Bits8, DataType::F32), (Packing::Bits4, DataType::F16), (Packing::Bits2, DataType::Bf16)]
        {
            for keep in [Keep::Fraction(0.25), Keep::Fraction(1.0)] {
                let mut settings = LinearSettings::new(tokens, in_features, out_features, keep).of_type(data_type);
                settings.weights = WeightSource::Predicted { clamp: 6.0 };
                settings.packing = packing;
                settings.bias_gradient = true;
                let plan = LinearPlan::new(settings, &h100()).expect("valid");
                let keeps_all = plan.keeps_all();
                assert_eq!(keeps_all, plan.kept_rows() == tokens);
                let (mut forward, mut backward) = (LaunchList::default(), LaunchList::default());
                let mut with_bias = LaunchList::default();
                let mut buffers = forward_buffers();
                if keeps_all {
                    (buffers.guess, buffers.placement) = (ptr::null(), ptr::null());
                    buffers.scratch = Memory { at: ptr::null_mut(), bytes: 0 };
                }
                let wanted = BackwardBuffers { bias_gradient: anywhere().at.cast(), ..backward_buffers() };
                // SAFETY: nothing runs.
                unsafe {
                    plan.forward(&mut forward, &buffers, DeviceRandomness::new(1, 2)).expect("fits");
                    plan.backward(&mut backward, &backward_buffers()).expect("fits");
                    plan.backward(&mut with_bias, &wanted).expect("fits");
                }
                let norms = format!("row_norms_{data_type}{}", suffix(in_features, data_type));
                let pack = format!("gather_pack_{data_type}");
                let expected = [&*norms, "select_wta_pivotal", &*pack];
                assert_eq!(names(&forward), if keeps_all { &expected[2..] } else { &expected });
                let found = names(&backward);
                assert!(found[2].starts_with("gather_gemm_"), "{found:?}");
                let unpack = format!("unpack_rows_{data_type}");
                let norms = format!("row_norms_{data_type}{}", suffix(out_features, data_type));
                assert_eq!(found, [&*norms, &*unpack, found[2], "turn_back_down"]);
                let norms = format!("row_norms_sums_{data_type}");
                assert_eq!(names(&with_bias), [&*norms, &*unpack, found[2], "turn_back_down"]);
                for list in [forward, backward, with_bias] {
                    list.launches().iter().for_each(|launch| assert_fits(launch.shape, &h100()));
                }
            }
        }
    }
}

#[test]
fn packed_sizes_are_known_before_there_is_memory() {
    let plan = |keep, packing| {
        let mut settings = settings(100, 300, 64);
        (settings.batch, settings.keep, settings.packing) = (3, keep, packing);
        LinearPlan::new(settings, &h100()).expect("valid")
    };
    // 320 elements in three groups of 128, 128 and 64.
    let some = plan(Keep::Rows(10), Packing::Bits4);
    let saved = some.saved();
    assert_eq!((some.keeps_all(), saved.row_words, saved.status_words), (false, 40, 1));
    let parts = [saved.rows, saved.codes, saved.grids, saved.origin, saved.indices, saved.scales, saved.count];
    assert_eq!(parts.map(|part| part.bytes), [0, 3 * 10 * 160, 3 * 10 * 12, 16, 3 * 10 * 4, 3 * 10 * 8, 12]);
    assert!(some.input_norms().bytes > 0 && some.draws() >= 100);
    let all = plan(Keep::Rows(100), Packing::Bits2);
    let saved = all.saved();
    assert_eq!(
        (all.keeps_all(), saved.row_words, all.draws()),
        (true, 20, 100.max(BuiltIn::default().draws(Keep::Rows(100).budget(100).expect("fits"))))
    );
    let parts = [saved.rows, saved.codes, saved.grids, saved.origin, saved.indices, saved.scales, saved.count];
    assert_eq!(parts.map(|part| part.bytes), [0, 3 * 100 * 80, 3 * 100 * 12, 16, 0, 0, 0]);
    assert_eq!(saved.status.bytes, 3 * 4 * u64::from(saved.status_words));
    assert_eq!((all.forward_scratch_bytes(), all.input_norms().bytes), (0, 0));
    let mut words = vec![0; 3 * saved.status_words as usize];
    words[saved.status_words as usize + 1] = 9;
    assert_eq!(saved.statuses(&words), [0, 9, 0]);
    // Rows of one small group, whose codes are filled up to 16 bytes.
    let mut narrow = settings(100, 3, 64);
    narrow.packing = Packing::Bits2;
    assert_eq!(LinearPlan::new(narrow, &h100()).expect("valid").saved().row_words, 4);
    // Nothing is selected, so nothing can be selected alone.
    let (mut list, at) = (LaunchList::default(), anywhere().at);
    let mut one = all.settings().clone();
    one.batch = 1;
    let all = LinearPlan::new(one, &h100()).expect("valid");
    let buffers = SelectBuffers {
        input_norms: at.cast(),
        guess: ptr::null(),
        indices: at.cast(),
        scales: at.cast(),
        count: at.cast(),
        status: at.cast(),
        winners: ptr::null_mut(),
        scratch: anywhere(),
    };
    // SAFETY: nothing runs.
    let refused = unsafe { all.select(&mut list, &buffers, DeviceRandomness::new(0, 0), 0) }.expect_err("refused");
    assert_eq!(refused, ExecuteError::Unplanned { what: "a selection" });
    let mut many = settings((1 << 31) - 1, 129, 1);
    (many.packing, many.keep) = (Packing::Bits2, Keep::Fraction(1.0));
    let refused = LinearPlan::new(many, &h100()).expect_err("refused").to_string();
    assert_eq!(refused, "the number of groups of all packed rows is 4294967294: at most 2147483647 are possible");
}

/// Kernels for aligned rows run only where pointers and strides are aligned, and everywhere there.
#[test]
fn rows_off_alignment_have_kernels_of_their_own() {
    let bytes_off = |at: *mut u8, bytes| at.wrapping_add(bytes);
    let at = anywhere().at;
    for data_type in [DataType::F32, DataType::F16, DataType::Bf16] {
        let forward = |input: *mut u8, guess: *mut u8, row: usize, weights| {
            let mut settings = settings(100, 64, 64).of_type(data_type);
            settings.weights = weights;
            settings.input_strides = Some(Strides::even(row, 100 * row));
            let plan = LinearPlan::new(settings, &h100()).expect("valid");
            let buffers = ForwardBuffers { input, guess: guess.cast(), ..forward_buffers() };
            let mut list = LaunchList::default();
            // SAFETY: nothing runs.
            unsafe { plan.forward(&mut list, &buffers, DeviceRandomness::new(1, 2)) }.expect("fits");
            [names(&list)[0], names(&list)[2]].map(|name| name.ends_with("_any"))
        };
        let (norms, predicted) = (WeightSource::Norms, WeightSource::Predicted { clamp: 6.0 });
        let element = data_type.bytes() as usize;
        assert_eq!(forward(at, at, 64, predicted), [false, false]);
        assert_eq!(forward(bytes_off(at, 16), at, 64 + 16 / element, norms), [false, false]);
        assert_eq!(forward(bytes_off(at, element), at, 64, norms), [true, true]);
        assert_eq!(forward(at, at, 65, norms), [true, true]);
        // θ is read beside the rows' norms alone; norms of dZ are read elsewhere.
        assert_eq!(forward(at, bytes_off(at, 4), 64, predicted), [true, false]);
        assert_eq!(forward(at, bytes_off(at, 4), 64, norms), [false, false]);

        let norms_of = |at: *mut u8, row: usize| {
            let strides = Strides::even(row, 9 * row);
            let matrix = Matrix { at, data_type, batch: 1, rows: 9, columns: 24, strides };
            matrix.check().expect("valid");
            let mut list = LaunchList::default();
            // SAFETY: nothing runs.
            unsafe { launch_row_norms(&mut list, &matrix, anywhere().at.cast()) }.expect("fits");
            names(&list)[0].ends_with("_any")
        };
        assert_eq!([norms_of(at, 24), norms_of(at, 25), norms_of(bytes_off(at, element), 24)], [false, true, true]);
    }
}

#[test]
fn sizes_of_zero_launch_what_must_be_written_and_no_more() {
    let packed_launches = |tokens, in_features, out_features, keep, packing, update, wants_bias: bool| {
        let mut settings = settings(tokens, in_features, out_features);
        settings.bias_gradient = true;
        (settings.keep, settings.packing) = (keep, packing);
        let plan = LinearPlan::new(settings, &h100()).expect("valid");
        // A matrix without elements needs no memory.
        let nothing = |len: usize, at: *mut u8| if len == 0 { ptr::null_mut() } else { at };
        let at = anywhere().at;
        let forward = ForwardBuffers { input: nothing(tokens * in_features, at), ..forward_buffers() };
        let bias = if wants_bias { nothing(out_features, at).cast() } else { ptr::null_mut() };
        let backward = BackwardBuffers {
            gradient: nothing(tokens * out_features, at),
            gradient_norms: nothing(tokens, at).cast(),
            weight_gradient: nothing(in_features * out_features, at),
            bias_gradient: bias,
            update,
            ..backward_buffers()
        };
        let (mut first, mut second) = (LaunchList::default(), LaunchList::default());
        // SAFETY: nothing runs.
        unsafe {
            plan.forward(&mut first, &forward, DeviceRandomness::new(1, 2)).expect("fits");
            plan.backward(&mut second, &backward).expect("fits");
        }
        for launch in first.launches().iter().chain(second.launches()) {
            assert_fits(launch.shape, &h100());
        }
        (names(&first), names(&second))
    };
    let launches = |tokens, in_features, out_features, update, wants_bias| {
        let native = Packing::Native;
        packed_launches(tokens, in_features, out_features, Keep::Fraction(0.25), native, update, wants_bias)
    };
    let (write, add) = (Update::Overwrite, Update::Accumulate);
    let no_tokens = vec!["split_reduce"];
    assert_eq!(launches(0, 8, 8, write, false), (no_tokens.clone(), vec!["split_reduce"]));
    assert_eq!(launches(0, 8, 8, write, true), (no_tokens.clone(), vec!["split_reduce_sums"]));
    assert_eq!(launches(0, 8, 8, add, true), (no_tokens.clone(), vec![]));
    assert_eq!(launches(0, 0, 0, write, true), (no_tokens.clone(), vec![]));
    assert_eq!(launches(0, 0, 8, write, true), (no_tokens, vec!["split_reduce_sums"]));
    let selects = vec!["row_norms_bf16", "select_wta_pivotal"];
    assert_eq!(launches(9, 0, 8, add, true), (selects.clone(), vec!["row_norms_sums_bf16", "split_reduce_sums"]));
    assert_eq!(launches(9, 0, 8, write, false), (selects.clone(), vec!["row_norms_bf16"]));
    assert_eq!(launches(9, 0, 0, write, true), (selects, vec!["row_norms_bf16"]));
    assert_eq!(launches(9, 8, 0, write, true).1, ["row_norms_bf16"]);
    for update in [write, add] {
        for sizes @ [tokens, in_features, out_features] in [[0, 8, 8], [0, 0, 8], [9, 0, 8], [9, 0, 0], [9, 8, 0]] {
            let some = Keep::Fraction(0.25);
            let packed = packed_launches(tokens, in_features, out_features, some, Packing::Bits4, update, true);
            let native = launches(tokens, in_features, out_features, update, true);
            assert_eq!(packed.1, native.1, "{sizes:?}");
            let all = Keep::Fraction(1.0);
            let all = packed_launches(tokens, in_features, out_features, all, Packing::Bits4, update, true);
            let forward = if tokens > 0 && in_features > 0 { "gather_pack_bf16" } else { "split_reduce" };
            assert_eq!(all, (vec![forward], native.1), "{sizes:?}");
        }
    }
}

fn assert_fits(shape: Shape, device: &Device) {
    let Shape { grid: [x, y, z], block, shared_bytes, cooperative } = shape;
    assert!(x > 0 && x <= i32::MAX as u32 && (1..=65_535).contains(&y) && (1..=65_535).contains(&z), "{shape:?}");
    assert!(block % 32 == 0 && (32..=1024).contains(&block) && shared_bytes <= device.shared_bytes, "{shape:?}");
    assert!(!cooperative || x * y * z <= device.multiprocessors, "{shape:?}");
}

#[test]
fn a_driver_sees_the_launches_and_nothing_else() {
    let installation = Arc::new(Installation::new(Fake::default()).expect("it will do"));
    let driver = Driver::open_with(installation, 0).expect("opens");
    for (tokens, batch) in [(1000, 1), (200_000, 1), (130, 6)] {
        let mut settings = settings(tokens, 96, 64).of_type(DataType::F32);
        settings.weights = WeightSource::Predicted { clamp: 6.0 };
        settings.batch = batch;
        let plan = LinearPlan::new(settings, driver.device()).expect("valid");
        Fake::of(&driver).forget();
        let stream = Stream(ptr::without_provenance_mut(0x50));
        let mut list = LaunchList::default();
        // SAFETY: the fake knows no streams.
        let mut launcher = unsafe { driver.on(stream) };
        if batch == 1 {
            step(&plan, &mut launcher).expect("launches");
            step(&plan, &mut list).expect("lists");
            assert!(list.launches().len() <= 9);
        } else {
            // SAFETY: as above.
            unsafe {
                plan.forward(&mut launcher, &forward_buffers(), DeviceRandomness::new(1, 2)).expect("launches");
                plan.forward(&mut list, &forward_buffers(), DeviceRandomness::new(1, 2)).expect("lists");
            }
        }
        let expected: Vec<Call> = list
            .launches()
            .iter()
            .map(|launch| Call::Launch {
                kernel: launch.kernel,
                stream: 0x50,
                shape: launch.shape,
                context: driver.context(),
            })
            .collect();
        assert_eq!(Fake::of(&driver).list(), expected);
    }
}

#[test]
fn sizes_are_known_before_there_is_memory() {
    let mut settings = settings(100, 13, 64);
    settings.weights = WeightSource::Predicted { clamp: 6.0 };
    settings.batch = 3;
    settings.keep = Keep::Rows(10);
    let plan = LinearPlan::new(settings, &h100()).expect("valid");
    let saved = plan.saved();
    // 13 bf16 are 26 bytes: rows lie 32 bytes apart.
    assert_eq!((plan.kept_rows(), saved.row_elements), (10, 16));
    let parts = [saved.rows, saved.indices, saved.scales, saved.count, saved.status];
    assert_eq!(parts.map(|part| part.bytes), [3 * 10 * 32, 3 * 10 * 4, 3 * 10 * 8, 12, 12]);
    for pair in parts.windows(2) {
        assert!(pair[0].offset + pair[0].bytes <= pair[1].offset && pair[1].offset % ALIGNMENT == 0);
    }
    assert!(saved.status.offset + saved.status.bytes <= saved.bytes);
    assert_eq!(plan.input_norms().bytes, 3 * 100 * 4);
    assert!(plan.forward_scratch_bytes() >= 2 * 3 * 100 * 4);
    for design in BuiltIn::ALL {
        let mut settings = plan.settings().clone();
        settings.design = design;
        let plan = LinearPlan::new(settings, &h100()).expect("valid");
        assert_eq!(plan.draws(), design.draws(Keep::Rows(10).budget(100).expect("fits")));
    }
    // Far more than 2³¹ elements.
    let large = LinearPlan::new(self::settings(1 << 20, 1 << 14, 1 << 14), &h100()).expect("valid");
    assert_eq!(large.saved().rows.bytes, (1 << 18) * (1 << 15));
}

#[test]
fn settings_without_a_plan() {
    let refused = |change: fn(&mut LinearSettings)| {
        let mut settings = settings(100, 30, 20);
        change(&mut settings);
        LinearPlan::new(settings, &h100()).expect_err("must be refused")
    };
    let message = |change| refused(change).to_string();
    assert_eq!(refused(|s| s.batch = 0), PlanError::Zero { what: "the batch" });
    assert_eq!(message(|s| s.batch = 70_000), "the batch is 70000: at most 65535 are possible");
    assert_eq!(message(|s| s.tokens = 1 << 31), "the number of tokens is 2147483648: at most 2147483647 are possible");
    assert_eq!(
        message(|s| s.in_features = usize::MAX),
        format!("the number of input features is {}: at most 2147483647 are possible", usize::MAX)
    );
    assert_eq!(
        refused(|s| s.keep = Keep::Rows(101)),
        PlanError::Budget(BudgetError::TooLarge { budget: 101, pairs: 100 })
    );
    assert_eq!(refused(|s| s.keep = Keep::Rows(0)), PlanError::Budget(BudgetError::Zero));
    let absurd = refused(|s| (s.tokens, s.in_features, s.batch) = ((1 << 31) - 1, 1 << 30, 65_535));
    assert_eq!(absurd, PlanError::Overflow { what: "H" });
    assert_eq!(absurd.to_string(), "H would be larger than any memory");
    assert_eq!(
        refused(|s| (s.tokens, s.in_features, s.out_features) = (1, 1 << 29, 1 << 29)).to_string(),
        "H would be larger than any memory".replace('H', "dW")
    );
    assert_eq!(
        message(|s| s.input_strides = Some(Strides::even(29, 0))),
        "the rows of H are 29 elements apart, and have 30"
    );
    assert_eq!(
        message(|s| (s.batch, s.weight_gradient_strides) = (2, Some(Strides::even(20, 19)))),
        "the matrices dW are 19 elements apart, and have 20"
    );
    // Matrices that are read may be the same; of those that are written no two blocks may write one element.
    let batch = |strides| {
        let mut settings = settings(100, 4, 8);
        settings.batch = 4;
        settings.weight_gradient_strides = Some(strides);
        LinearPlan::new(settings, &h100())
    };
    let heads = |row, head, sample| {
        let heads = NonZeroU32::new(2).expect("not 0");
        Strides { row, matrices: Spacing { sample, head, heads } }
    };
    for strides in [Strides::even(8, 32), Strides::even(32, 8), heads(16, 8, 64), heads(8, 32, 64), heads(8, 64, 32)] {
        assert!(batch(strides).is_ok(), "{strides:?}");
    }
    for (strides, message) in [
        (Strides::even(8, 8), "the matrices dW are 8 elements apart, and have 32"),
        (Strides::even(16, 8), "the rows of dW are 16 elements apart, and have 32"),
        (heads(16, 8, 63), "the matrices dW are 63 elements apart, and have 64"),
        (heads(16, 0, 64), "the matrices dW are 0 elements apart, and have 8"),
    ] {
        assert_eq!(batch(strides).expect_err("must be refused").to_string(), message);
    }
    let mut same = settings(100, 30, 20);
    same.batch = 2;
    same.input_strides = Some(Strides::even(30, 0));
    assert!(LinearPlan::new(same, &h100()).is_ok());
    assert!(matches!(
        refused(|s| s.gradient_strides = Some(Strides::even(1 << 62, 0))),
        PlanError::TooLarge { what: "the length of a row of dZ", .. }
    ));
    assert_eq!(
        message(|s| s.gradient = DataType::F16),
        "no kernel multiplies bf16 with f16 into f32: both must be of one type, and the product of that or f32"
    );
    assert!(matches!(refused(|s| s.weight_gradient = DataType::F16), PlanError::DataTypes { .. }));
    for mix in [-0.1, 1.1, f64::NAN] {
        let mut with = settings(10, 3, 2);
        with.weights = WeightSource::Cached { mix };
        assert!(matches!(LinearPlan::new(with, &h100()), Err(PlanError::OutOfRange { what: "the mix", .. })));
    }
    for clamp in [0.0, 20.5, f64::NAN] {
        let mut with = settings(10, 3, 2);
        with.weights = WeightSource::Predicted { clamp };
        assert!(matches!(LinearPlan::new(with, &h100()), Err(PlanError::OutOfRange { what: "the clamp", .. })));
    }
}

#[test]
fn what_is_not_executed() {
    let mut with = settings(100, 30, 20);
    with.weights = WeightSource::Norms;
    let plan = LinearPlan::new(with, &h100()).expect("valid");
    let mut list = LaunchList::default();
    let odd = ptr::without_provenance_mut::<u8>(0x1_0001);
    let small = |bytes: u64| Memory { bytes: bytes - 1, ..anywhere() };
    // SAFETY: nothing runs.
    let mut forward =
        |buffers| unsafe { plan.forward(&mut list, &buffers, DeviceRandomness::new(0, 0)) }.expect_err("refused");
    let ok = forward_buffers();
    assert_eq!(forward(ForwardBuffers { input: ptr::null(), ..ok }), ExecuteError::Null { what: "the input" });
    assert_eq!(
        forward(ForwardBuffers { input: odd, ..ok }).to_string(),
        "the pointer to the input, 0x10001, is not aligned to 2 bytes"
    );
    assert_eq!(forward(ForwardBuffers { guess: ptr::null(), ..ok }), ExecuteError::Null { what: "the guess" });
    let saved = plan.saved().bytes;
    assert_eq!(
        forward(ForwardBuffers { saved: small(saved), ..ok }),
        ExecuteError::TooSmall { what: "the saved memory", needed: saved, found: saved - 1 }
    );
    let scratch = plan.forward_scratch_bytes();
    assert_eq!(
        forward(ForwardBuffers { scratch: small(scratch), ..ok }).to_string(),
        format!("the scratch of the forward pass has {} bytes, and {scratch} are needed", scratch - 1)
    );
    let misaligned = Memory { at: ptr::without_provenance_mut(0x1_0080), ..anywhere() };
    assert!(matches!(
        forward(ForwardBuffers { scratch: misaligned, ..ok }),
        ExecuteError::Misaligned { alignment: 256, address: 0x1_0080, .. }
    ));
    // SAFETY: nothing runs.
    let mut backward = |buffers| unsafe { plan.backward(&mut list, &buffers) }.expect_err("refused");
    let ok = backward_buffers();
    assert_eq!(backward(BackwardBuffers { gradient: ptr::null(), ..ok }), ExecuteError::Null { what: "dZ" });
    assert_eq!(backward(BackwardBuffers { weight_gradient: ptr::null_mut(), ..ok }), ExecuteError::Null { what: "dW" });
    assert!(matches!(
        backward(BackwardBuffers { gradient_norms: odd.cast(), ..ok }),
        ExecuteError::Misaligned { what: "the norms of dZ", .. }
    ));
    assert_eq!(
        backward(BackwardBuffers { bias_gradient: anywhere().at.cast(), ..ok }).to_string(),
        "the bias gradient: the plan was made without it"
    );
    assert!(matches!(
        backward(BackwardBuffers { saved: small(saved), ..ok }),
        ExecuteError::TooSmall { what: "the saved memory", .. }
    ));
    assert_eq!(list.launches(), [], "nothing is launched unless all is well");
}

#[test]
fn attention() {
    let mut scores = MatmulSettings::new([2, 3, 128, 32, 96]);
    scores.left = Some(Keep::Rows(20));
    scores.right = Some(Keep::Fraction(0.5));
    let plan = MatmulPlan::new(&scores, &h100()).expect("valid");
    let (left, right) = (plan.left().expect("sampled"), plan.right().expect("sampled"));
    assert_eq!((left.kept_columns(), right.kept_rows(), plan.draws()), (20, 64, 128));
    assert_eq!(left.saved().rows.bytes, 6 * 20 * 32 * 2);
    assert_eq!(right.saved().rows.bytes, 6 * 64 * 32 * 2);
    let mut list = LaunchList::default();
    // SAFETY: nothing runs.
    unsafe {
        left.forward(&mut list, &forward_buffers(), DeviceRandomness::new(0, 0)).expect("fits");
        left.backward(&mut list, &backward_buffers()).expect("fits");
        let bias = BackwardBuffers { bias_gradient: anywhere().at.cast(), ..backward_buffers() };
        let refused = left.backward(&mut list, &bias).expect_err("refused");
        assert_eq!(refused.to_string(), "a bias gradient: the plan was made without it");
    }
    let found = names(&list);
    assert_eq!(
        &found[..5],
        ["row_norms_bf16", "select_wta_pivotal", "gather_rows_bf16", "column_norms_bf16", "gather_columns_bf16"]
    );
    assert!(found[5].starts_with("gather_gemm_bf16") && found.len() <= 7, "{found:?}");
    let all_items = |shape: Shape| shape.grid[2].is_multiple_of(6);
    assert!(list.launches().iter().all(|launch| all_items(launch.shape)), "one launch for all (batch, head)");

    // From packed columns, one launch more.
    let mut packed = scores.clone();
    packed.packing = Packing::Bits4;
    let of_packed = MatmulPlan::new(&packed, &h100()).expect("valid");
    let mut list = LaunchList::default();
    // SAFETY: nothing runs.
    unsafe { of_packed.left().expect("sampled").backward(&mut list, &backward_buffers()) }.expect("fits");
    let found = names(&list);
    let expected = ["column_norms_bf16", "unpack_rows_bf16", "gather_columns_bf16", found[3], "turn_back_along"];
    assert_eq!(found, expected);
    assert!(found[3].starts_with("gather_gemm_bf16"), "{found:?}");
    assert!(list.launches().iter().all(|launch| all_items(launch.shape)), "one launch for all (batch, head)");

    let mut context = scores.clone();
    context.left = None;
    let plan = MatmulPlan::new(&context, &h100()).expect("valid");
    assert!(plan.left().is_none() && plan.right().is_some());
    let refused = |settings: &MatmulSettings| MatmulPlan::new(settings, &h100()).expect_err("refused").to_string();
    let mut predicted = scores.clone();
    predicted.weights = WeightSource::Predicted { clamp: 6.0 };
    assert_eq!(refused(&predicted), "there is no plan for a norm predictor for products of attention");
    let mut none = scores.clone();
    none.heads = 0;
    assert_eq!(refused(&none), "the number of heads is 0: there is nothing to estimate");
    let mut many = scores;
    many.batch = 4096;
    many.heads = 4096;
    assert_eq!(refused(&many), "the number of (batch, head) pairs is 16777216: at most 65535 are possible");
}

#[test]
fn a_predictor_s_plan() {
    let layer = LinearPlan::new(settings(100, 30, 20), &h100()).expect("valid");
    let plan = PredictorPlan::new(&layer, PredictorSettings::default()).expect("valid");
    assert_eq!((plan.theta().bytes, plan.theta().offset % 16), (120, 0));
    assert!(plan.state_bytes() > plan.theta().offset && plan.sums_len() > 0);
    let refused = |settings| PredictorPlan::new(&layer, settings).expect_err("refused").to_string();
    let ok = PredictorSettings::default();
    assert_eq!(refused(ok.with_features(0)), "the number of a predictor's features is 0: there is nothing to estimate");
    assert!(
        refused(ok.with_features(MOST_FEATURES as usize + 1))
            .ends_with(&format!("at most {MOST_FEATURES} are possible"))
    );
    assert!(refused(ok.with_forgetting(1.5)).starts_with("the forgetting is 1.5"));
    assert!(refused(ok.with_rows_per_update(0)).starts_with("the number of rows"));
    let mut two = settings(100, 30, 20);
    two.batch = 2;
    let batch = LinearPlan::new(two, &h100()).expect("valid");
    assert!(PredictorPlan::new(&batch, ok).is_err());
    let mut list = LaunchList::default();
    let small = UpdateBuffers { sums: Memory { bytes: 8, ..anywhere() }, ..update_buffers() };
    // SAFETY: nothing runs.
    let error = unsafe { plan.update(&mut list, &small) }.expect_err("refused");
    assert!(matches!(error, ExecuteError::TooSmall { what: "the predictor's sums", .. }));
}
