//! What kernels that are bound by memory ask of it, in their PTX: whole sectors, and enough bytes on their way.

use crate::common::{BY_PTX_TOO, Machine, only_gpu};
use crate::steps::{self, Data, Given};
use half::bf16;
use ndarray::Array2;
use std::collections::BTreeMap;
use wtacrs_core::Keep;
use wtacrs_core::product::Packing;
use wtacrs_kernels::plan::{DeviceRandomness, Engine, LinearPlan, LinearSettings, WeightSource};
use wtacrs_ptx::Traffic;

const TOKENS: usize = 128;
/// Rows of 2 KiB: four vectors of 16 bytes for each lane of a warp.
const WIDTH: usize = 1024;

/// The most sectors of an access, of the least that its bytes take, and the least bytes on their way in a thread. A
/// multiprocessor of an H100 needs about 16 KiB: 64 bytes in each of 256 threads.
const BOUNDS: [(&str, f64, u32); 10] = [
    ("row_norms_bf16", 1.0, 64),
    ("row_norms_sums_bf16", 1.01, 64),
    ("row_norms_gather_bf16", 1.02, 64),
    ("gather_rows_bf16", 1.0, 64),
    // Four quads of 16 bits.
    ("gather_pack_bf16", 1.0, 32),
    // Codes of 4 bits, and a grid: its limit is what it writes.
    ("unpack_rows_bf16", 1.0, 20),
    // Sums that are added to old ones: four quads, and four more before they are written.
    ("gather_gemm_bf16_wide", 1.0, 128),
    // Sixteen loads of 32 bits for each partial product.
    ("turn_back_down", 1.0, 64),
    // Here it ends the sums of few ranges: a load or two in each thread.
    ("split_reduce_sums", 1.0, 4),
    // Bound by latency: pairs are read in any order.
    ("select_wta_pivotal", 1.5, 32),
];

/// What the launches of a layer's steps ask of memory, by kernel.
fn of_layers() -> BTreeMap<&'static str, Traffic> {
    let mut machine = Machine::measured();
    let value = |(i, j): (usize, usize)| bf16::from_number(((i * 31 + j * 17) % 61) as f32 / 30.0 - 1.0);
    let h = Array2::from_shape_fn((TOKENS, WIDTH), value);
    let guess = vec![1.0; TOKENS];
    let (native, packed, own) = (Packing::Native, Packing::Bits4, Engine::Own);
    for (packing, bias_gradient, engine) in
        [(native, false, own), (packed, false, own), (native, true, own), (native, false, Engine::CublasLt)]
    {
        let mut settings = LinearSettings::new(TOKENS, WIDTH, WIDTH, Keep::Fraction(0.25));
        (settings.weights, settings.packing, settings.bias_gradient) = (WeightSource::Norms, packing, bias_gradient);
        settings.engine = engine;
        let plan = LinearPlan::new(settings, machine.device()).expect("valid");
        let mut given = Given::new(h.view(), h.view(), &guess, DeviceRandomness::new(3, 5));
        given.old_dw = 1.0;
        steps::run(&mut machine, &plan, &given);
    }
    let mut found = BTreeMap::<&str, Traffic>::new();
    for &(kernel, traffic) in machine.traffic() {
        let all = found.entry(kernel).or_default();
        all.accesses += traffic.accesses;
        all.sectors += traffic.sectors;
        all.least_sectors += traffic.least_sectors;
        all.bytes_in_flight = all.bytes_in_flight.max(traffic.bytes_in_flight);
    }
    found
}

#[test]
fn layers_move_whole_sectors_with_enough_of_them_on_their_way() {
    if !BY_PTX_TOO || only_gpu() {
        return;
    }
    let found = of_layers();
    for (kernel, traffic) in &found {
        let of_least = traffic.sectors as f64 / traffic.least_sectors as f64;
        println!("{kernel:24} {of_least:.3} of the least sectors, {} bytes in flight", traffic.bytes_in_flight);
        let bound = BOUNDS.iter().find(|(bounded, ..)| bounded == kernel);
        let &(_, most, bytes) = bound.unwrap_or_else(|| panic!("{kernel} has no bound"));
        assert!(of_least <= most && traffic.bytes_in_flight >= bytes, "{kernel}: {traffic:?}");
    }
    assert_eq!(found.len(), BOUNDS.len(), "{found:?}");
}
