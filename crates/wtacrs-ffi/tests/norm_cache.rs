//! The norm cache's bounds through the C interface: the CPU returns what does not fit, a GPU leaves it out and reports it.

#[path = "common/calls.rs"]
mod calls;

use calls::{check, context, last_error};
use std::ptr::{null, null_mut};
use wtacrs::stand_in::use_emulator;
use wtacrs::*;

fn contexts() -> [*mut wtacrs_context; 2] {
    use_emulator();
    [context(WTACRS_DEVICE_CPU, 0), context(WTACRS_DEVICE_CUDA, 0)]
}

fn created(context: *const wtacrs_context, samples: usize, tokens: usize) -> *mut wtacrs_norm_cache {
    let mut cache = null_mut();
    // SAFETY: an output of one pointer.
    check(unsafe { wtacrs_norm_cache_create(context, samples, tokens, &mut cache) });
    cache
}

/// Stores ones for samples of some lengths, side by side.
fn store(cache: *mut wtacrs_norm_cache, batch: &[(u64, u64)]) -> wtacrs_status {
    let (ids, lengths): (Vec<u64>, Vec<u64>) = batch.iter().copied().unzip();
    let norms = vec![1_f32; lengths.iter().sum::<u64>() as usize];
    let (ids, lengths, tokens) = (ids.as_ptr(), lengths.as_ptr(), norms.len());
    // SAFETY: every pointer is to memory of the documented size that lives until the call returns.
    unsafe { wtacrs_norm_cache_store(cache, ids, lengths, batch.len(), 0, norms.as_ptr(), tokens, null_mut()) }
}

/// What a cache knows of a sample of some length.
fn fetch(cache: *const wtacrs_norm_cache, sample: u64, tokens: usize) -> Vec<f32> {
    let mut norms = vec![9_f32; tokens];
    let (ids, to) = (&raw const sample, norms.as_mut_ptr());
    // SAFETY: as above.
    check(unsafe { wtacrs_norm_cache_fetch(cache, ids, null(), 1, tokens, to, tokens, null_mut()) });
    norms
}

fn outcome(cache: *mut wtacrs_norm_cache) -> (u32, u64) {
    let (mut fault, mut sample) = (9, 9);
    // SAFETY: outputs of one number.
    check(unsafe { wtacrs_norm_cache_outcome(cache, &mut fault, &mut sample) });
    (fault, sample)
}

fn saved(cache: *const wtacrs_norm_cache) -> Vec<u8> {
    let mut needed = 0;
    // SAFETY: an output of one number, and a buffer of the size that was asked for.
    unsafe {
        check(wtacrs_norm_cache_save(cache, null_mut(), 0, &mut needed));
        let mut bytes = vec![0_u8; needed];
        check(wtacrs_norm_cache_save(cache, bytes.as_mut_ptr().cast(), needed, &mut needed));
        bytes
    }
}

fn loaded(
    context: *const wtacrs_context,
    samples: usize,
    tokens: usize,
    bytes: &[u8],
) -> Result<*mut wtacrs_norm_cache, wtacrs_status> {
    let mut cache = null_mut();
    // SAFETY: bytes of that length, and an output of one pointer.
    let status =
        unsafe { wtacrs_norm_cache_load(context, samples, tokens, bytes.as_ptr().cast(), bytes.len(), &mut cache) };
    assert_eq!(status == WTACRS_STATUS_OK, !cache.is_null());
    if cache.is_null() { Err(status) } else { Ok(cache) }
}

fn destroy(caches: &[*mut wtacrs_norm_cache]) {
    // SAFETY: handles are never followed.
    caches.iter().for_each(|&cache| check(unsafe { wtacrs_norm_cache_destroy(cache) }));
}

#[test]
fn what_does_not_fit_is_returned_or_reported() {
    let [cpu, gpu] = contexts().map(|context| created(context, 8, 4));
    for cache in [cpu, gpu] {
        check(store(cache, &[(7, 4), (0, 1)]));
        assert_eq!((fetch(cache, 7, 4), outcome(cache)), (vec![1.0; 4], (0, 0)));
    }
    let known = [cpu, gpu].map(|cache| saved(cache));
    assert_eq!(known[0], known[1], "the same bytes from either device");
    for (batch, status, words, fault) in [
        ([(3, 2), (8, 4)], WTACRS_STATUS_INVALID_ARGUMENT, "samples[1] is 8", (1, 8)),
        ([(3, 5), (2, 4)], WTACRS_STATUS_SHAPE_MISMATCH, "samples[0], 3, has 5 tokens", (2, 3)),
    ] {
        assert_eq!(store(cpu, &batch), status);
        assert!(last_error().contains(words), "{}", last_error());
        assert_eq!((saved(cpu), outcome(cpu)), (known[0].clone(), (0, 0)), "nothing of the batch is stored");
        check(store(gpu, &batch));
        assert_eq!(outcome(gpu), fault);
        assert_eq!(outcome(gpu), (0, 0), "since the last question");
    }
    // Of those batches, the GPU has stored what fits.
    assert_eq!((fetch(gpu, 3, 2), fetch(gpu, 2, 4)), (vec![1.0; 2], vec![1.0; 4]));
    for cache in [cpu, gpu] {
        let (ids, mut norms) = ([0_u64, 7], [9_f32; 10]);
        // SAFETY: every pointer is to memory of the documented size that lives until the call returns.
        unsafe {
            let (ids, to, none) = (ids.as_ptr(), norms.as_mut_ptr(), null_mut());
            let too_long = wtacrs_norm_cache_fetch(cache, ids, null(), 2, 5, to, 10, none);
            assert_eq!(too_long, WTACRS_STATUS_SHAPE_MISMATCH, "rows of more tokens than a sample can have");
            let too_few = wtacrs_norm_cache_fetch(cache, ids, null(), 2, 4, to, 7, none);
            assert_eq!(too_few, WTACRS_STATUS_BUFFER_TOO_SMALL);
            let strange = [u64::MAX, 8, 1];
            check(wtacrs_norm_cache_forget(cache, strange.as_ptr(), strange.len(), none));
        }
        assert_eq!((norms, outcome(cache)), ([9.0; 10], (0, 0)));
        assert_eq!(fetch(cache, 7, 4), [1.0; 4], "it was not forgotten");
    }
    destroy(&[cpu, gpu]);
}

/// On the CPU either bound may be missing. A GPU needs memory for both.
#[test]
fn a_cache_without_bounds_is_the_cpus() {
    const ANY: usize = usize::MAX;
    let [cpu, gpu] = contexts();
    let (far, long) = ((u64::MAX, 2), (1, 4096));
    for (samples, tokens, takes_far, takes_long) in
        [(ANY, ANY, true, true), (ANY, 4, true, false), (8, ANY, false, true), (8, 4, false, false)]
    {
        let cache = created(cpu, samples, tokens);
        let stored = [far, long].map(|sample| store(cache, &[sample]) == WTACRS_STATUS_OK);
        assert_eq!(stored, [takes_far, takes_long], "{samples} samples of {tokens} tokens");
        destroy(&[cache]);
        let mut on_gpu = null_mut();
        // SAFETY: an output of one pointer.
        let status = unsafe { wtacrs_norm_cache_create(gpu, samples, tokens, &mut on_gpu) };
        let has_bounds = samples != ANY && tokens != ANY;
        assert_eq!(status, if has_bounds { WTACRS_STATUS_OK } else { WTACRS_STATUS_UNSUPPORTED });
        destroy(&[on_gpu]);
    }
}

#[test]
fn loading_refuses_a_sample_that_has_no_room() {
    let contexts = contexts();
    let first = created(contexts[0], usize::MAX, usize::MAX);
    check(store(first, &[(2, 3), (7, 4)]));
    let bytes = saved(first);
    for context in contexts {
        let cache = loaded(context, 8, 4, &bytes).expect("it fits");
        assert_eq!(saved(cache), bytes);
        destroy(&[cache]);
        for (samples, tokens) in [(7, 4), (8, 3)] {
            assert_eq!(loaded(context, samples, tokens, &bytes), Err(WTACRS_STATUS_SHAPE_MISMATCH));
            assert!(last_error().contains('7'), "it names the sample: {}", last_error());
        }
    }
    assert_eq!(loaded(contexts[1], usize::MAX, 4, &bytes), Err(WTACRS_STATUS_UNSUPPORTED));
    let again = loaded(contexts[0], usize::MAX, usize::MAX, &bytes).expect("there are no bounds");
    assert_eq!(saved(again), bytes);
    destroy(&[first, again]);
}
