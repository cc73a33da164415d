//! Which instructions the kernels may use.

/// From the plainest up. All give the same bits; they differ in speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// What every processor of the target has.
    Scalar,
    Avx2,
    /// AVX-512 with byte dot products (VNNI).
    Avx512,
}

impl Tier {
    pub const ALL: [Tier; 3] = [Tier::Scalar, Tier::Avx2, Tier::Avx512];

    /// The best that this processor has.
    pub fn detect() -> Tier {
        Tier::ALL.into_iter().rev().find(|tier| tier.is_available()).unwrap_or(Tier::Scalar)
    }

    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        match self {
            Tier::Scalar => true,
            Tier::Avx2 => is_x86_feature_detected!("avx2"),
            Tier::Avx512 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vnni")
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        matches!(self, Tier::Scalar)
    }

    pub fn name(self) -> &'static str {
        match self {
            Tier::Scalar => "scalar",
            Tier::Avx2 => "avx2",
            Tier::Avx512 => "avx512",
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
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $type),*) $(-> $ret)? { $body($($arg),*) }
                #[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512dq")]
                fn avx512($($arg: $type),*) $(-> $ret)? { $body($($arg),*) }
                match cpu.tier() {
                    // SAFETY: a `Cpu` exists only for a tier that this processor has.
                    $crate::Tier::Avx2 => return unsafe { avx2($($arg),*) },
                    // SAFETY: as above.
                    $crate::Tier::Avx512 => return unsafe { avx512($($arg),*) },
                    $crate::Tier::Scalar => {}
                }
            }
            let _ = cpu;
            $body($($arg),*)
        }
    };
}
pub(super) use tiered;

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
