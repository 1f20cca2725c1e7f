//! atom, in the scope of the device for global memory and of the block for shared memory; ld and st, relaxed and
//! with acquire and release.

use core::arch::asm;

/// Defines a trait of one type's instructions, implements it for both types, and defines the functions that call it.
macro_rules! atomics {
    ($($name:ident, $ptx32:literal, $ptx64:literal;)*) => {
        /// An integer that atom instructions take. Pointers lead to global memory, u32 addresses to shared memory.
        pub trait Atomic: Copy {
            $(
                #[doc = concat!("atom.global.", $ptx32)]
                ///
                /// # Safety
                ///
                /// `at` is aligned, readable and writable global memory, accessed atomically only.
                unsafe fn $name(at: *mut Self, value: Self) -> Self;
            )*

            /// Operations on shared memory.
            ///
            /// # Safety
            ///
            /// `at` is aligned, lies in the launch's shared memory and is accessed atomically only.
            unsafe fn in_shared(operation: Operation, at: u32, value: Self) -> Self;

            /// atom.global.cas
            ///
            /// # Safety
            ///
            /// As for the others.
            unsafe fn compare_exchange(at: *mut Self, expected: Self, value: Self) -> Self;

            /// ld.relaxed.gpu
            ///
            /// # Safety
            ///
            /// As for the others.
            unsafe fn load_relaxed(at: *const Self) -> Self;

            /// st.relaxed.gpu
            ///
            /// # Safety
            ///
            /// As for the others.
            unsafe fn store_relaxed(at: *mut Self, value: Self);

            /// ld.acquire.gpu
            ///
            /// # Safety
            ///
            /// As for the others.
            unsafe fn load_acquire(at: *const Self) -> Self;

            /// st.release.gpu
            ///
            /// # Safety
            ///
            /// As for the others.
            unsafe fn store_release(at: *mut Self, value: Self);
        }

        /// Which operation; always a constant after inlining.
        #[expect(non_camel_case_types, reason = "named like the functions")]
        #[derive(Clone, Copy)]
        pub enum Operation {
            $(
                #[doc = concat!("atom.shared.", $ptx32)]
                $name,
            )*
        }

        atomics!(@implement u32, reg32, "32", $($name, $ptx32;)*);
        atomics!(@implement u64, reg64, "64", $($name, $ptx64;)*);

        /// On global memory.
        pub(crate) mod global {
            use super::Atomic;
            $(
                #[inline(always)]
                pub(crate) unsafe fn $name<T: Atomic>(at: *mut T, value: T) -> T {
                    // SAFETY: the caller's promise.
                    unsafe { T::$name(at, value) }
                }
            )*

            #[inline(always)]
            pub(crate) unsafe fn compare_exchange<T: Atomic>(at: *mut T, expected: T, value: T) -> T {
                // SAFETY: the caller's promise.
                unsafe { T::compare_exchange(at, expected, value) }
            }

            #[inline(always)]
            pub(crate) unsafe fn load_relaxed<T: Atomic>(at: *const T) -> T {
                // SAFETY: the caller's promise.
                unsafe { T::load_relaxed(at) }
            }

            #[inline(always)]
            pub(crate) unsafe fn store_relaxed<T: Atomic>(at: *mut T, value: T) {
                // SAFETY: the caller's promise.
                unsafe { T::store_relaxed(at, value) }
            }

            #[inline(always)]
            pub(crate) unsafe fn load_acquire<T: Atomic>(at: *const T) -> T {
                // SAFETY: the caller's promise.
                unsafe { T::load_acquire(at) }
            }

            #[inline(always)]
            pub(crate) unsafe fn store_release<T: Atomic>(at: *mut T, value: T) {
                // SAFETY: the caller's promise.
                unsafe { T::store_release(at, value) }
            }
        }

        /// On shared memory.
        pub(crate) mod shared {
            use super::{Atomic, Operation};
            use crate::types::Address;
            $(
                #[inline(always)]
                pub(crate) unsafe fn $name<T: Atomic>(at: Address, _limit: Address, value: T) -> T {
                    // SAFETY: the caller's promise.
                    unsafe { T::in_shared(Operation::$name, at.0, value) }
                }
            )*
        }
    };

    (@implement $type:ty, $class:ident, $bits:literal, $($name:ident, $ptx:literal;)*) => {
        impl Atomic for $type {
            $(
                #[inline(always)]
                unsafe fn $name(at: *mut Self, value: Self) -> Self {
                    let before;
                    // SAFETY: the caller's promise.
                    unsafe {
                        asm!(
                            concat!("atom.relaxed.gpu.global.", $ptx, " {0}, [{1}], {2};"),
                            out($class) before,
                            in(reg64) at,
                            in($class) value,
                            options(nostack, preserves_flags),
                        );
                    }
                    before
                }
            )*

            #[inline(always)]
            unsafe fn in_shared(operation: Operation, at: u32, value: Self) -> Self {
                let before;
                match operation {
                    $(
                        // SAFETY: the caller's promise.
                        Operation::$name => unsafe {
                            asm!(
                                concat!("atom.relaxed.cta.shared.", $ptx, " {0}, [{1}], {2};"),
                                out($class) before,
                                in(reg32) at,
                                in($class) value,
                                options(nostack, preserves_flags),
                            );
                        },
                    )*
                }
                before
            }

            #[inline(always)]
            unsafe fn compare_exchange(at: *mut Self, expected: Self, value: Self) -> Self {
                let before;
                // SAFETY: the caller's promise.
                unsafe {
                    asm!(
                        concat!("atom.relaxed.gpu.global.cas.b", $bits, " {0}, [{1}], {2}, {3};"),
                        out($class) before,
                        in(reg64) at,
                        in($class) expected,
                        in($class) value,
                        options(nostack, preserves_flags),
                    );
                }
                before
            }

            #[inline(always)]
            unsafe fn load_relaxed(at: *const Self) -> Self {
                let value;
                // SAFETY: the caller's promise.
                unsafe {
                    asm!(
                        concat!("ld.relaxed.gpu.global.b", $bits, " {0}, [{1}];"),
                        out($class) value,
                        in(reg64) at,
                        options(nostack, preserves_flags),
                    );
                }
                value
            }

            #[inline(always)]
            unsafe fn store_relaxed(at: *mut Self, value: Self) {
                // SAFETY: the caller's promise.
                unsafe {
                    asm!(
                        concat!("st.relaxed.gpu.global.b", $bits, " [{0}], {1};"),
                        in(reg64) at,
                        in($class) value,
                        options(nostack, preserves_flags),
                    );
                }
            }

            #[inline(always)]
            unsafe fn load_acquire(at: *const Self) -> Self {
                let value;
                // SAFETY: the caller's promise.
                unsafe {
                    asm!(
                        concat!("ld.acquire.gpu.global.b", $bits, " {0}, [{1}];"),
                        out($class) value,
                        in(reg64) at,
                        options(nostack, preserves_flags),
                    );
                }
                value
            }

            #[inline(always)]
            unsafe fn store_release(at: *mut Self, value: Self) {
                // SAFETY: the caller's promise.
                unsafe {
                    asm!(
                        concat!("st.release.gpu.global.b", $bits, " [{0}], {1};"),
                        in(reg64) at,
                        in($class) value,
                        options(nostack, preserves_flags),
                    );
                }
            }
        }
    };
}

atomics! {
    atomic_add, "add.u32", "add.u64";
    atomic_max, "max.u32", "max.u64";
    atomic_min, "min.u32", "min.u64";
    atomic_or, "or.b32", "or.b64";
    atomic_exchange, "exch.b32", "exch.b64";
}
