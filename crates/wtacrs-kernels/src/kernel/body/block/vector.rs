//! Elements of a row in vectors of 16 bytes: one load or store where memory is aligned, one for each element elsewhere.
//!
//! Both give the same vector, so a kernel's results do not depend on alignment.

use crate::kernel::body::element::{Bf16, Element, F16, F32};
use wtacrs_simt::math;
use wtacrs_simt::memory::{self, U32x2, U32x4, Word};

/// An element type that packs into words of 32 bits, low half first.
pub trait Packed: Element {
    /// Elements of a word.
    const PER_WORD: u32;

    /// Bytes of an element.
    const BYTES: u32 = 4 / Self::PER_WORD;

    /// Elements of a vector.
    const PER_VECTOR: u32 = 4 * Self::PER_WORD;

    /// Calls `each` with the index of an element within the word, and its value, in order.
    fn for_each(word: u32, each: impl FnMut(u32, f32));

    /// The word of the elements' images, rounded.
    fn map(word: u32, of: impl Fn(f32) -> f32) -> u32;

    /// Four neighbours in memory.
    type Quad: Word;

    /// Their values.
    fn from_quad(quad: Self::Quad) -> [f32; 4];

    /// The neighbours with these values, rounded.
    fn to_quad(values: [f32; 4]) -> Self::Quad;

    /// Four neighbours, which do not change while the kernel runs, in one access.
    ///
    /// # Safety
    ///
    /// They are readable, and aligned to their bytes together.
    #[inline(always)]
    unsafe fn load_quad(from: *const u8) -> [f32; 4] {
        // SAFETY: the caller's promise.
        Self::from_quad(unsafe { memory::load_constant(from.cast()) })
    }

    /// Writes four neighbours, rounded, in one access.
    ///
    /// # Safety
    ///
    /// They are writable, and aligned to their bytes together.
    #[inline(always)]
    unsafe fn store_quad(to: *mut u8, values: [f32; 4]) {
        // SAFETY: the caller's promise.
        unsafe { memory::store(to.cast(), Self::to_quad(values)) }
    }
}

impl Packed for F32 {
    const PER_WORD: u32 = 1;

    #[inline(always)]
    fn for_each(word: u32, mut each: impl FnMut(u32, f32)) {
        each(0, f32::from_bits(word));
    }

    #[inline(always)]
    fn map(word: u32, of: impl Fn(f32) -> f32) -> u32 {
        of(f32::from_bits(word)).to_bits()
    }

    type Quad = U32x4;

    #[inline(always)]
    fn from_quad(U32x4(words): U32x4) -> [f32; 4] {
        words.map(f32::from_bits)
    }

    #[inline(always)]
    fn to_quad(values: [f32; 4]) -> U32x4 {
        U32x4(values.map(f32::to_bits))
    }
}

macro_rules! halves {
    ($type:ty, $high:expr, $narrow_pair:path) => {
        impl Packed for $type {
            const PER_WORD: u32 = 2;

            #[inline(always)]
            fn for_each(word: u32, mut each: impl FnMut(u32, f32)) {
                each(0, Self::widen(word as u16));
                each(1, $high(word));
            }

            #[inline(always)]
            fn map(word: u32, of: impl Fn(f32) -> f32) -> u32 {
                $narrow_pair(of(Self::widen(word as u16)), of($high(word)))
            }

            type Quad = U32x2;

            #[inline(always)]
            fn from_quad(U32x2([a, b]): U32x2) -> [f32; 4] {
                [Self::widen(a as u16), $high(a), Self::widen(b as u16), $high(b)]
            }

            #[inline(always)]
            fn to_quad([a, b, c, d]: [f32; 4]) -> U32x2 {
                U32x2([$narrow_pair(a, b), $narrow_pair(c, d)])
            }
        }
    };
}

halves!(F16, |word: u32| Self::widen((word >> 16) as u16), math::f32_pair_to_f16);
// Without the lower half's bits, a word is the f32 of its upper half.
halves!(Bf16, |word: u32| f32::from_bits(word & 0xffff_0000), math::f32_pair_to_bf16);

/// The vector at `from`, which does not change while the kernel runs.
///
/// # Safety
///
/// 16 bytes are readable, aligned to 16 if ALIGNED and to the element otherwise.
#[inline(always)]
pub unsafe fn load<E: Packed, const ALIGNED: bool>(from: *const u8) -> U32x4 {
    if ALIGNED {
        // SAFETY: the caller's promise.
        return unsafe { memory::load_constant(from.cast::<U32x4>()) };
    }
    // SAFETY: the words lie within the vector.
    unsafe {
        U32x4([
            load_word::<E>(from),
            load_word::<E>(from.add(4)),
            load_word::<E>(from.add(8)),
            load_word::<E>(from.add(12)),
        ])
    }
}

/// The word of one or two elements at `from`.
#[inline(always)]
unsafe fn load_word<E: Packed>(from: *const u8) -> u32 {
    // SAFETY: the caller's promise: four bytes are readable, and aligned to the element.
    unsafe {
        if E::PER_WORD == 1 {
            memory::load_constant(from.cast::<u32>())
        } else {
            let low = memory::load_constant(from.cast::<u16>());
            let high = memory::load_constant(from.add(2).cast::<u16>());
            u32::from(low) | u32::from(high) << 16
        }
    }
}

/// The vector of the first `elements` at `from`, filled with zeros.
///
/// # Safety
///
/// So many elements are readable and aligned.
#[inline(always)]
pub unsafe fn load_part<E: Packed>(from: *const u8, elements: u32) -> U32x4 {
    let element = |i: u32| {
        if i < elements {
            // SAFETY: the caller's promise.
            unsafe { load_element::<E>(from.add((i * E::BYTES) as usize)) }
        } else {
            0
        }
    };
    let word = |i: u32| {
        if E::PER_WORD == 1 { element(i) } else { element(2 * i) | element(2 * i + 1) << 16 }
    };
    U32x4([word(0), word(1), word(2), word(3)])
}

/// Writes a vector.
///
/// # Safety
///
/// 16 bytes are writable, aligned to 16 if ALIGNED and to the element otherwise.
#[inline(always)]
pub unsafe fn store<E: Packed, const ALIGNED: bool>(to: *mut u8, vector: U32x4) {
    // SAFETY: the caller's promise; the words lie within the vector.
    unsafe {
        if ALIGNED {
            memory::store(to.cast::<U32x4>(), vector);
            return;
        }
        let U32x4([a, b, c, d]) = vector;
        store_word::<E>(to, a);
        store_word::<E>(to.add(4), b);
        store_word::<E>(to.add(8), c);
        store_word::<E>(to.add(12), d);
    }
}

#[inline(always)]
unsafe fn store_word<E: Packed>(to: *mut u8, word: u32) {
    // SAFETY: the caller's promise: four bytes are writable, and aligned to the element.
    unsafe {
        if E::PER_WORD == 1 {
            memory::store(to.cast::<u32>(), word);
        } else {
            memory::store(to.cast::<u16>(), word as u16);
            memory::store(to.add(2).cast::<u16>(), (word >> 16) as u16);
        }
    }
}

/// One element, in the low bits of a word.
///
/// # Safety
///
/// It is readable and aligned.
#[inline(always)]
pub unsafe fn load_element<E: Packed>(from: *const u8) -> u32 {
    // SAFETY: the caller's promise.
    unsafe {
        if E::PER_WORD == 1 {
            memory::load_constant(from.cast::<u32>())
        } else {
            u32::from(memory::load_constant(from.cast::<u16>()))
        }
    }
}

/// Writes one element from the low bits of a word.
///
/// # Safety
///
/// It is writable and aligned.
#[inline(always)]
pub unsafe fn store_element<E: Packed>(to: *mut u8, word: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        if E::PER_WORD == 1 {
            memory::store(to.cast::<u32>(), word);
        } else {
            memory::store(to.cast::<u16>(), word as u16);
        }
    }
}

/// The value of the element in a word's low bits.
#[inline(always)]
pub fn value<E: Packed>(word: u32) -> f32 {
    let mut value = 0.0;
    E::for_each(word, |i, element| {
        if i == 0 {
            value = element;
        }
    });
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use wtacrs_simt::emulator::{Launch, launch};
    use wtacrs_simt::index::thread;

    /// Elements of 16 bytes, low half first.
    fn elements<E: Packed>(U32x4(words): U32x4) -> Vec<f32> {
        let mut elements = Vec::new();
        words.into_iter().for_each(|word| E::for_each(word, |_, value| elements.push(value)));
        elements
    }

    fn check<E: Packed>(numbers: &[f32]) {
        let bytes: Vec<u8> = numbers
            .iter()
            .flat_map(|&number| {
                let word = E::map(if E::PER_WORD == 1 { number.to_bits() } else { 0 }, |_| number);
                word.to_le_bytes()[..E::BYTES as usize].to_vec()
            })
            .collect();
        let from = bytes.as_ptr().addr();
        let mut room = [U32x4::default(); 3];
        let to = room.as_mut_ptr().addr();
        let kernel = || {
            let (from, to) =
                (std::ptr::with_exposed_provenance::<u8>(from), std::ptr::with_exposed_provenance_mut::<u8>(to));
            // SAFETY: a vector is readable, and two are writable, one of them an element off alignment.
            unsafe {
                let vector = load::<E, false>(from);
                assert_eq!(elements::<E>(vector), numbers);
                for count in 0..=numbers.len() {
                    let mut part = numbers.to_vec();
                    part[count..].fill(0.0);
                    assert_eq!(elements::<E>(load_part::<E>(from, count as u32)), part);
                }
                if thread() == 0 {
                    store::<E, true>(to, vector);
                    store::<E, false>(to.add(16 + E::BYTES as usize), vector);
                }
                assert_eq!(value::<E>(load_element::<E>(from.add(E::BYTES as usize))), numbers[1]);
            }
        };
        bytes.as_ptr().expose_provenance();
        room.as_mut_ptr().expose_provenance();
        let shape = Launch { grid: [1; 3], block: 32, shared_bytes: 0, cooperative: false, seed: 0 };
        launch(shape, &kernel).expect("no fault");
        let written: Vec<u8> = room.iter().flat_map(|vector| vector.0.map(u32::to_le_bytes)).flatten().collect();
        assert_eq!(written[..16], bytes[..16]);
        assert_eq!(written[16 + E::BYTES as usize..][..16], bytes[..16]);
    }

    #[test]
    fn both_ways_give_the_same_vector() {
        check::<F32>(&[1.5, -2.0, 1e-40, f32::MAX]);
        check::<F16>(&[1.5, -2.0, 6e-8, 65504.0, 0.0, -0.5, 3.0, 7.0].map(|v| F16::widen(F16::narrow(v))));
        check::<Bf16>(&[1.5, -2.0, 1e30, -1e-30, 0.0, -0.5, 3.0, 7.0].map(|v| Bf16::widen(Bf16::narrow(v))));
    }
}
