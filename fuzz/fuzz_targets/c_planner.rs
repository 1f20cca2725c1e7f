//! Planners through the C interface: layers, observations and sums that are right, absurd, missing or not aligned, in any order.
//! Every call keeps the promises of `wtacrs_fuzz::memory`, a wrong handle is refused, and budgets are such that a plan takes them.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use std::ffi::c_void;
use std::ptr::{null_mut, without_provenance_mut};
use wtacrs::*;
use wtacrs_fuzz::handles::{Size, bytes_of, extent};
use wtacrs_fuzz::memory::{Memory, Place};
use wtacrs_fuzz::structs::Form;
use wtacrs_fuzz::world::{dtype, with_gap};

/// Planners and layers beyond these many add nothing.
const MOST_PLANNERS: usize = 4;
const MOST_LAYERS: usize = 6;

#[derive(Arbitrary, Debug)]
enum Call {
    Create(Place),
    Destroy(u8),
    AddLayer {
        planner: u8,
        in_features: Size,
        dtype: u8,
        layer: Place,
    },
    ShareInput {
        planner: u8,
        layers: [u8; 2],
    },
    Observe {
        planner: u8,
        layer: u8,
        tokens: Size,
        arrays: [Place; 3],
        rows: Size,
        packing: i8,
        numbers: [f64; 2],
        form: Form,
    },
    ObserveRows {
        planner: u8,
        layer: u8,
        dtype: u8,
        rows: Size,
        h: Place,
        gap: u8,
    },
    Count {
        planner: u8,
        count: Place,
    },
    Statistics {
        planner: u8,
        sums: Place,
        more: i8,
    },
    Apply {
        planner: u8,
        sums: Place,
        from: Option<u8>,
        more: i8,
    },
    Solve {
        planner: u8,
        target: i8,
        share: f64,
    },
    Budget {
        planner: u8,
        layer: u8,
        form: Form,
    },
    SaveAndLoad {
        planner: u8,
        less: u8,
        change: Option<(u16, u8)>,
        needed: Place,
    },
}

/// A planner that lives, with the features of its layers.
struct Living {
    address: usize,
    features: Vec<usize>,
}

#[derive(Default)]
struct State {
    memory: Memory,
    living: Vec<Living>,
    /// Destroyed ones.
    gone: Vec<usize>,
}

impl State {
    /// Mostly a living one; else a destroyed one, NULL, or a number that was never given.
    fn choose(&self, pick: u8) -> (*mut wtacrs_planner, Option<usize>) {
        let number = usize::from(pick);
        match number {
            0..232 if !self.living.is_empty() => {
                let at = number % self.living.len();
                (without_provenance_mut(self.living[at].address), Some(at))
            }
            232..248 if !self.gone.is_empty() => (without_provenance_mut(self.gone[number % self.gone.len()]), None),
            248..252 => (without_provenance_mut(usize::MAX - number), None),
            _ => (null_mut(), None),
        }
    }

    /// The numbers of a planner's statistics; as many as nothing where there is none.
    fn sums(&self, planner: *mut wtacrs_planner) -> usize {
        let mut count = 0;
        // SAFETY: an output of one number.
        let status = unsafe { wtacrs_planner_statistics_count(planner, &mut count) };
        if status == WTACRS_STATUS_OK { count } else { 0 }
    }
}

fn refused(status: wtacrs_status, known: Option<usize>) {
    assert!(status != WTACRS_STATUS_OK || known.is_some(), "a wrong handle was taken");
}

fn with_more(count: usize, more: i8) -> usize {
    count.saturating_add_signed(isize::from(more / 32))
}

fn call(state: &mut State, call: &Call) {
    match *call {
        Call::Create(place) => {
            if state.living.len() >= MOST_PLANNERS {
                return;
            }
            let output = state.memory.place(place, 8, 8);
            // SAFETY: memory as documented.
            let status = state
                .memory
                .call("wtacrs_planner_create", &[(output, 8)], &[], || unsafe { wtacrs_planner_create(output.cast()) });
            if status == WTACRS_STATUS_OK {
                // SAFETY: just written.
                let address = unsafe { output.cast::<usize>().read() };
                state.living.push(Living { address, features: vec![] });
            }
        }
        Call::Destroy(pick) => {
            let (planner, known) = state.choose(pick);
            // SAFETY: a handle is never followed.
            let status =
                state.memory.call("wtacrs_planner_destroy", &[], &[], || unsafe { wtacrs_planner_destroy(planner) });
            assert_eq!(status == WTACRS_STATUS_OK, known.is_some() || planner.is_null());
            if let Some(at) = known {
                state.gone.push(state.living.swap_remove(at).address);
            }
        }
        Call::AddLayer { planner, in_features, dtype: number, layer } => {
            let (planner, known) = state.choose(planner);
            if known.is_some_and(|at| state.living[at].features.len() >= MOST_LAYERS) {
                return;
            }
            let (features, number, output) = (in_features.get(), dtype(number), state.memory.place(layer, 8, 8));
            // SAFETY: memory as documented.
            let status = state.memory.call("wtacrs_planner_add_layer", &[(output, 8)], &[], || unsafe {
                wtacrs_planner_add_layer(planner, features, number, output.cast())
            });
            refused(status, known);
            if let (WTACRS_STATUS_OK, Some(at)) = (status, known) {
                // SAFETY: just written.
                assert_eq!(unsafe { output.cast::<usize>().read() }, state.living[at].features.len());
                state.living[at].features.push(features);
            }
        }
        Call::ShareInput { planner, layers: [layer, first] } => {
            let (planner, known) = state.choose(planner);
            let [layer, first] = [layer, first].map(|layer| usize::from(layer % 8));
            // SAFETY: a handle is never followed.
            let status = state.memory.call("wtacrs_planner_share_input", &[], &[], || unsafe {
                wtacrs_planner_share_input(planner, layer, first)
            });
            refused(status, known);
            if let (WTACRS_STATUS_OK, Some(at)) = (status, known) {
                let features = &state.living[at].features;
                assert!(first < layer && features[layer] == features[first]);
            }
        }
        Call::Observe { planner, layer, tokens, arrays, rows, packing, numbers, form } => {
            let (planner, known) = state.choose(planner);
            let (layer, tokens) = (usize::from(layer % 8), tokens.get());
            let place = |memory: &mut Memory, at: usize, bytes: usize| {
                memory.place(arrays[at], tokens.saturating_mul(bytes), bytes)
            };
            let seen = wtacrs_observation {
                tokens,
                weights: place(&mut state.memory, 0, 8).cast(),
                input_norms: place(&mut state.memory, 1, 4).cast(),
                dz_norms: place(&mut state.memory, 2, 4).cast(),
                budget_rows: rows.get(),
                packing: packing.into(),
                squared_norm: numbers[0],
                squared_change: numbers[1],
                ..Default::default()
            };
            let given = form.given(&mut state.memory, seen);
            // SAFETY: memory as documented.
            let status = state.memory.call("wtacrs_planner_observe", &[], &[], || unsafe {
                wtacrs_planner_observe(planner, layer, given.pointer)
            });
            refused(status, known);
            assert!(status != WTACRS_STATUS_OK || given.is_readable);
        }
        Call::ObserveRows { planner, layer, dtype: number, rows, h, gap } => {
            let (planner, known) = state.choose(planner);
            let (layer, number, rows) = (usize::from(layer % 8), dtype(number), rows.get());
            let features = known.and_then(|at| state.living[at].features.get(layer).copied()).unwrap_or(4);
            let leading = with_gap(features, gap);
            let size = bytes_of(number);
            let h = state.memory.place(h, extent(rows, features, leading, size), size);
            // SAFETY: memory as documented.
            let status = state.memory.call("wtacrs_planner_observe_rows", &[], &[], || unsafe {
                wtacrs_planner_observe_rows(planner, layer, number, rows, h.cast::<c_void>(), leading)
            });
            refused(status, known);
        }
        Call::Count { planner, count } => {
            let (planner, known) = state.choose(planner);
            let output = state.memory.place(count, 8, 8);
            // SAFETY: memory as documented.
            let status = state.memory.call("wtacrs_planner_statistics_count", &[(output, 8)], &[], || unsafe {
                wtacrs_planner_statistics_count(planner, output.cast())
            });
            refused(status, known);
        }
        Call::Statistics { planner, sums, more } => {
            let (planner, known) = state.choose(planner);
            let count = state.sums(planner);
            let (room, output) = (with_more(count, more), state.memory.place(sums, 8 * with_more(count, more), 8));
            // SAFETY: memory as documented.
            let status = state.memory.call("wtacrs_planner_statistics", &[(output, 8 * count)], &[], || unsafe {
                wtacrs_planner_statistics(planner, output.cast(), room)
            });
            refused(status, known);
            assert!(status != WTACRS_STATUS_OK || room >= count);
        }
        Call::Apply { planner, sums, from, more } => {
            let (planner, known) = state.choose(planner);
            let count = with_more(state.sums(planner), more);
            let given = state.memory.place(sums, 8 * count, 8);
            // Its own pending sums, or another's, in the place of any numbers.
            if let Some(from) = from
                && let (other, Some(_)) = state.choose(from)
                && state.sums(other) <= count
                && given.cast::<f64>().is_aligned()
                && !given.is_null()
            {
                // SAFETY: as many numbers as there are, aligned.
                unsafe { wtacrs_planner_statistics(other, given.cast(), count) };
            }
            // SAFETY: memory as documented.
            let status = state.memory.call("wtacrs_planner_apply", &[], &[], || unsafe {
                wtacrs_planner_apply(planner, given.cast(), count)
            });
            refused(status, known);
        }
        Call::Solve { planner, target, share } => {
            let (planner, known) = state.choose(planner);
            // SAFETY: a handle is never followed.
            let status = state.memory.call("wtacrs_planner_solve", &[], &[], || unsafe {
                wtacrs_planner_solve(planner, target.into(), share)
            });
            refused(status, known);
            assert!(status != WTACRS_STATUS_OK || ((0..=1).contains(&target) && share > 0.0));
        }
        Call::Budget { planner, layer, form } => {
            let (planner, known) = state.choose(planner);
            let given = form.given(&mut state.memory, wtacrs_planned::default());
            let output = (given.pointer.cast(), given.size);
            // SAFETY: memory as documented.
            let status = state.memory.call("wtacrs_planner_get_budget", &[output], &[], || unsafe {
                wtacrs_planner_get_budget(planner, usize::from(layer % 8), given.pointer)
            });
            refused(status, known);
            if status == WTACRS_STATUS_OK {
                assert!(given.is_writable(size_of::<wtacrs_planned>()));
                // SAFETY: just written.
                let found = unsafe { given.pointer.read() };
                assert!((0.0..=1.0).contains(&found.share) && (0..4).contains(&found.packing));
                assert_eq!(found.is_planned == 1, found.share > 0.0 && found.tokens > 0);
                assert!(found.squared_error >= 0.0);
            }
        }
        Call::SaveAndLoad { planner, less, change, needed } => {
            let (planner, known) = state.choose(planner);
            let mut length = 0;
            // SAFETY: asks for the number alone.
            unsafe { wtacrs_planner_save(planner, null_mut(), 0, &mut length) };
            let room = length.saturating_sub(usize::from(less / 128));
            let (bytes, output) = (state.memory.place(Place::Own(0), room, 1), state.memory.place(needed, 8, 8));
            // How many there are is told in any case.
            let told = [(output, 8)];
            // SAFETY: memory as documented.
            let status = state.memory.call("wtacrs_planner_save", &[(bytes, room), (output, 8)], &told, || unsafe {
                wtacrs_planner_save(planner, bytes.cast(), room, output.cast())
            });
            refused(status, known);
            if status != WTACRS_STATUS_OK || length == 0 || state.living.len() >= MOST_PLANNERS {
                return;
            }
            let mut is_changed = false;
            if let Some((at, mask)) = change.filter(|&(_, mask)| mask != 0) {
                // SAFETY: within the bytes.
                unsafe { *bytes.wrapping_add(usize::from(at) % length) ^= mask };
                is_changed = true;
            }
            let mut loaded = null_mut();
            // SAFETY: memory as documented.
            let status = state.memory.call("wtacrs_planner_load", &[], &[], || unsafe {
                wtacrs_planner_load(bytes.cast(), length, &mut loaded)
            });
            assert_eq!(status == WTACRS_STATUS_OK, !is_changed, "changed bytes are found out");
            if let (WTACRS_STATUS_OK, Some(at)) = (status, known) {
                let features = state.living[at].features.clone();
                state.living.push(Living { address: loaded.addr(), features });
            }
        }
    }
}

fuzz_target!(|calls: Vec<Call>| {
    let mut state = State::default();
    for one in calls.iter().take(64) {
        call(&mut state, one);
        state.memory.release();
    }
    for Living { address, .. } in state.living {
        // SAFETY: a handle is never followed.
        assert_eq!(unsafe { wtacrs_planner_destroy(without_provenance_mut(address)) }, WTACRS_STATUS_OK);
    }
});
