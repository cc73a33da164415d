//! Which instructions the kernels may use.

/// From the plainest up. All give the same bits; they differ in speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// What every processor of the target has.
    Scalar,
    /// 64-bit ARM with byte dot products.
    Neon,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX2 with byte dot products.
    AvxVnni,
    /// AVX-512 with byte dot products.
    Avx512,
    /// AVX-512 with byte and bfloat dot products.
    Avx512Bf16,
}

#[cfg(target_arch = "x86_64")]
macro_rules! has {
    ($($feature:tt),*) => { $(is_x86_feature_detected!($feature))&&* };
}

impl Tier {
    pub const ALL: [Tier; 6] =
        [Tier::Scalar, Tier::Neon, Tier::Avx2, Tier::AvxVnni, Tier::Avx512, Tier::Avx512Bf16];

    /// The best that this processor has.
    pub fn detect() -> Tier {
        Tier::ALL.into_iter().rev().find(|tier| tier.is_available()).unwrap_or(Tier::Scalar)
    }

    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        match self {
            Tier::Scalar => true,
            Tier::Neon => false,
            Tier::Avx2 => has!("avx2", "fma", "f16c"),
            Tier::AvxVnni => Tier::Avx2.is_available() && has!("avxvnni"),
            Tier::Avx512 => {
                Tier::Avx2.is_available() && has!("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni")
            }
            Tier::Avx512Bf16 => Tier::Avx512.is_available() && has!("avx512bf16"),
        }
        #[cfg(target_arch = "aarch64")]
        match self {
            Tier::Scalar => true,
            Tier::Neon => std::arch::is_aarch64_feature_detected!("dotprod"),
            _ => false,
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        matches!(self, Tier::Scalar)
    }

    pub fn name(self) -> &'static str {
        match self {
            Tier::Scalar => "scalar",
            Tier::Neon => "neon",
            Tier::Avx2 => "avx2",
            Tier::AvxVnni => "avx-vnni",
            Tier::Avx512 => "avx512",
            Tier::Avx512Bf16 => "avx512-bf16",
        }
    }

    pub fn from_name(name: &str) -> Option<Tier> {
        Tier::ALL.into_iter().find(|tier| tier.name() == name)
    }
}

/// A tier that this processor is known to have: the proof that the kernels ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cpu(Tier);

impl Cpu {
    /// `None` when the processor lacks the tier.
    pub fn new(tier: Tier) -> Option<Cpu> {
        tier.is_available().then_some(Cpu(tier))
    }

    pub fn tier(self) -> Tier {
        self.0
    }
}

/// Compiles one kernel body for every tier and picks at run time. The body must be `#[inline(always)]`: that is
/// what lets the compiler use the tier's registers for it.
macro_rules! tiered {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? = $body:path) => {
        $(#[$meta])*
        $vis fn $name(cpu: $crate::kernels::Cpu, $($arg: $type),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2($($arg: $type),*) $(-> $ret)? { $body($($arg),*) }
                #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")]
                fn avx512($($arg: $type),*) $(-> $ret)? { $body($($arg),*) }
                use $crate::Tier;
                match cpu.tier() {
                    Tier::Scalar | Tier::Neon => {}
                    // SAFETY: a `Cpu` exists only for a tier that this processor has.
                    Tier::Avx2 | Tier::AvxVnni => return unsafe { avx2($($arg),*) },
                    // SAFETY: as above.
                    Tier::Avx512 | Tier::Avx512Bf16 => return unsafe { avx512($($arg),*) },
                }
            }
            let _ = cpu;
            $body($($arg),*)
        }
    };
}
pub(super) use tiered;

/// Compiles a kernel that is written over [`super::lanes::Lanes`] for every tier and picks at run time. The wrapper is
/// as unsafe as the body, except that the instructions are there.
macro_rules! tiered_lanes {
    (
        $(#[$meta:meta])*
        $vis:vis unsafe fn $name:ident[$($generic:tt)*][$($given:tt)*]($($arg:ident: $type:ty),* $(,)?) = $($body:ident)::+
    ) => {
        $(#[$meta])*
        $vis unsafe fn $name<$($generic)*>(cpu: $crate::kernels::Cpu, $($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                use $crate::{Tier, kernels::lanes::x86};
                #[target_feature(enable = "avx2,fma,f16c")]
                unsafe fn avx2<$($generic)*>($($arg: $type),*) {
                    // SAFETY: the caller's promise.
                    unsafe { $($body)::+::<x86::Avx2, $($given)*>($($arg),*) }
                }
                #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
                unsafe fn avx_vnni<$($generic)*>($($arg: $type),*) {
                    // SAFETY: the caller's promise.
                    unsafe { $($body)::+::<x86::AvxVnni, $($given)*>($($arg),*) }
                }
                #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
                unsafe fn avx512<$($generic)*>($($arg: $type),*) {
                    // SAFETY: the caller's promise.
                    unsafe { $($body)::+::<x86::Avx512, $($given)*>($($arg),*) }
                }
                // SAFETY: a `Cpu` exists only for a tier that this processor has; the rest is the caller's promise.
                unsafe {
                    match cpu.tier() {
                        Tier::Scalar | Tier::Neon => {}
                        Tier::Avx2 => return avx2::<$($given)*>($($arg),*),
                        Tier::AvxVnni => return avx_vnni::<$($given)*>($($arg),*),
                        Tier::Avx512 | Tier::Avx512Bf16 => return avx512::<$($given)*>($($arg),*),
                    }
                }
            }
            #[cfg(target_arch = "aarch64")]
            if cpu.tier() == $crate::Tier::Neon {
                // The intrinsics are those of every 64-bit ARM; the one instruction that is not is an assembler's.
                // SAFETY: a `Cpu` exists only for a tier that this processor has; the rest is the caller's promise.
                return unsafe { $($body)::+::<$crate::kernels::lanes::neon::Neon, $($given)*>($($arg),*) };
            }
            let _ = cpu;
            // SAFETY: the caller's promise.
            unsafe { $($body)::+::<$crate::kernels::lanes::Scalar, $($given)*>($($arg),*) }
        }
    };
}
pub(super) use tiered_lanes;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tier_has_a_name_of_its_own_and_scalar_is_everywhere() {
        for tier in Tier::ALL {
            assert_eq!(Tier::from_name(tier.name()), Some(tier));
        }
        assert_eq!(Tier::from_name("sse9"), None);
        assert!(Tier::Scalar.is_available());
        assert_eq!(Cpu::new(Tier::detect()).map(Cpu::tier), Some(Tier::detect()));
    }
}
