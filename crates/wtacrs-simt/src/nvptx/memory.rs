//! ld and st, on global and shared memory, 1 to 16 bytes wide.

use crate::types::{Address, U32x2, U32x4};
use core::arch::asm;

#[inline(always)]
pub(crate) unsafe fn load<T: Access>(from: *const T) -> T {
    // SAFETY: the caller's promise.
    unsafe { T::load(from) }
}

#[inline(always)]
pub(crate) unsafe fn load_constant<T: Access>(from: *const T) -> T {
    // SAFETY: the caller's promise.
    unsafe { T::load_constant(from) }
}

#[inline(always)]
pub(crate) unsafe fn store<T: Access>(to: *mut T, value: T) {
    // SAFETY: the caller's promise.
    unsafe { T::store(to, value) }
}

/// The address of the first byte of dynamic shared memory, whose name [`crate::shared_memory!`] declares.
#[inline(always)]
pub(crate) fn shared_base() -> u32 {
    let address: u32;
    // SAFETY: takes an address, which never changes.
    unsafe {
        asm!("mov.u32 {0}, wtacrs_shared;", out(reg32) address, options(pure, nomem, nostack, preserves_flags));
    }
    address
}

#[inline(always)]
pub(crate) unsafe fn read_shared<T: Access>(from: Address, _limit: Address) -> T {
    // SAFETY: the caller's promise.
    unsafe { T::read(from.0) }
}

#[inline(always)]
pub(crate) unsafe fn write_shared<T: Access>(to: Address, _limit: Address, value: T) {
    // SAFETY: the caller's promise.
    unsafe { T::write(to.0, value) }
}

/// A type that one instruction loads or stores. Pointers lead to global memory, u32 addresses to shared memory.
pub trait Access: Copy {
    /// ld.global
    ///
    /// # Safety
    ///
    /// As for [`crate::memory::load`].
    unsafe fn load(from: *const Self) -> Self;

    /// ld.global.nc
    ///
    /// # Safety
    ///
    /// As for [`crate::memory::load_constant`].
    unsafe fn load_constant(from: *const Self) -> Self;

    /// st.global
    ///
    /// # Safety
    ///
    /// As for [`crate::memory::store`].
    unsafe fn store(to: *mut Self, value: Self);

    /// ld.shared
    ///
    /// # Safety
    ///
    /// As for [`crate::shared::Shared::read`].
    unsafe fn read(from: u32) -> Self;

    /// st.shared
    ///
    /// # Safety
    ///
    /// As for [`crate::shared::Shared::write`].
    unsafe fn write(to: u32, value: Self);
}

/// One load, by its instruction, the register class, the class and value of the address, and the type of the register.
macro_rules! load {
    ($instruction:expr, $class:ident, $address:ident, $from:expr, $bits:ty) => {{
        let bits: $bits;
        // SAFETY: the caller of the function around this promises a readable, aligned place.
        unsafe {
            asm!(
                concat!($instruction, " {0}, [{1}];"),
                out($class) bits,
                in($address) $from,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        bits
    }};
}

/// One store, likewise.
macro_rules! store {
    ($instruction:expr, $class:ident, $address:ident, $to:expr, $bits:expr) => {
        // SAFETY: the caller of the function around this promises a writable, aligned place.
        unsafe {
            asm!(
                concat!($instruction, " [{0}], {1};"),
                in($address) $to,
                in($class) $bits,
                options(nostack, preserves_flags),
            );
        }
    };
}

macro_rules! scalar {
    ($type:ty, $ptx:literal, $class:ident, $bits:ty, |$raw:ident| $decode:expr, |$value:ident| $encode:expr) => {
        impl Access for $type {
            #[inline(always)]
            unsafe fn load(from: *const Self) -> Self {
                let $raw: $bits = load!(concat!("ld.global.", $ptx), $class, reg64, from, $bits);
                $decode
            }

            #[inline(always)]
            unsafe fn load_constant(from: *const Self) -> Self {
                let $raw: $bits = load!(concat!("ld.global.nc.", $ptx), $class, reg64, from, $bits);
                $decode
            }

            #[inline(always)]
            unsafe fn store(to: *mut Self, $value: Self) {
                let bits: $bits = $encode;
                store!(concat!("st.global.", $ptx), $class, reg64, to, bits);
            }

            #[inline(always)]
            unsafe fn read(from: u32) -> Self {
                let $raw: $bits = load!(concat!("ld.shared.", $ptx), $class, reg32, from, $bits);
                $decode
            }

            #[inline(always)]
            unsafe fn write(to: u32, $value: Self) {
                let bits: $bits = $encode;
                store!(concat!("st.shared.", $ptx), $class, reg32, to, bits);
            }
        }
    };
}

// Registers narrower than 32 bits hold no bytes; a wider one is filled with zeros.
scalar!(u8, "u8", reg32, u32, |raw| raw as u8, |value| u32::from(value));
scalar!(u16, "u16", reg32, u32, |raw| raw as u16, |value| u32::from(value));
scalar!(u32, "b32", reg32, u32, |raw| raw, |value| value);
scalar!(u64, "b64", reg64, u64, |raw| raw, |value| value);
scalar!(f32, "b32", reg32, u32, |raw| f32::from_bits(raw), |value| value.to_bits());
scalar!(f64, "b64", reg64, u64, |raw| f64::from_bits(raw), |value| value.to_bits());

/// One vector load into the registers a, b, ….
macro_rules! vector_load {
    ($instruction:expr, $address:ident, $from:expr, $list:literal, $($register:ident)*) => {{
        $(let $register: u32;)*
        // SAFETY: the caller of the function around this promises a readable, aligned place.
        unsafe {
            asm!(
                concat!($instruction, " ", $list, ", [{from}];"),
                $($register = out(reg32) $register,)*
                from = in($address) $from,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        [$($register),*]
    }};
}

/// One vector store, likewise.
macro_rules! vector_store {
    ($instruction:expr, $address:ident, $to:expr, $list:literal, $value:expr, $($register:ident)*) => {{
        let [$($register),*] = $value;
        // SAFETY: the caller of the function around this promises a writable, aligned place.
        unsafe {
            asm!(
                concat!($instruction, " [{to}], ", $list, ";"),
                $($register = in(reg32) $register,)*
                to = in($address) $to,
                options(nostack, preserves_flags),
            );
        }
    }};
}

macro_rules! vector {
    ($type:ident, $ptx:literal, $list:literal, $($register:ident)*) => {
        impl Access for $type {
            #[inline(always)]
            unsafe fn load(from: *const Self) -> Self {
                $type(vector_load!(concat!("ld.global.", $ptx), reg64, from, $list, $($register)*))
            }

            #[inline(always)]
            unsafe fn load_constant(from: *const Self) -> Self {
                $type(vector_load!(concat!("ld.global.nc.", $ptx), reg64, from, $list, $($register)*))
            }

            #[inline(always)]
            unsafe fn store(to: *mut Self, value: Self) {
                vector_store!(concat!("st.global.", $ptx), reg64, to, $list, value.0, $($register)*);
            }

            #[inline(always)]
            unsafe fn read(from: u32) -> Self {
                $type(vector_load!(concat!("ld.shared.", $ptx), reg32, from, $list, $($register)*))
            }

            #[inline(always)]
            unsafe fn write(to: u32, value: Self) {
                vector_store!(concat!("st.shared.", $ptx), reg32, to, $list, value.0, $($register)*);
            }
        }
    };
}

vector!(U32x2, "v2.b32", "{{{a}, {b}}}", a b);
vector!(U32x4, "v4.b32", "{{{a}, {b}, {c}, {d}}}", a b c d);
