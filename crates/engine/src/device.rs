//! The transformer where candle computes: the same parts of the same file as [`crate::transformer`]'s, as tensors on
//! one of candle's devices. Made for GPUs. Our own kernels know nothing of it, and it knows nothing of theirs, but for
//! what the host does anyway: rows of tokens, angles, the choice of experts.
//!
//! Unlike our kernels, candle's add in another order for other numbers of rows: the last bits of a sequence's scores
//! depend on what else is in the batch.

mod attention;
mod cache;
mod feed_forward;
mod model;
mod weights;

use std::fmt;

use crate::Error;
pub(crate) use cache::page_bytes;
pub(crate) use model::DeviceTransformer;

/// Of candle, if nobody says otherwise.
type Result<T, E = candle_core::Error> = std::result::Result<T, E>;

/// Where a model computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The processor, by our own kernels.
    #[default]
    Cpu,
    /// The GPU with this number, by candle's CUDA kernels. Every build knows the name, one
    /// with the feature `cuda` can load to it.
    Cuda(usize),
    /// The processor, but as if it were a GPU: by candle's kernels for processors. Slow; tests hold the code for GPUs to
    /// the figures of every architecture with it, on machines that have none.
    CandleCpu,
}

/// Tells what a GPU has for models.
#[derive(Clone, Debug)]
pub struct Meter(cuda::Context);

/// A measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceMemory {
    pub total_bytes: u64,
    pub available_bytes: u64,
}

// === impl Device ===

impl Device {
    /// Whether this build has code for GPUs.
    pub const HAS_CUDA: bool = cfg!(feature = "cuda");

    /// `cpu`, or `cuda:` and the number of a GPU.
    pub fn from_name(name: &str) -> Option<Device> {
        match name.strip_prefix("cuda:") {
            Some(ordinal) if ordinal.bytes().all(|byte| byte.is_ascii_digit()) => {
                ordinal.parse().ok().map(Device::Cuda)
            }
            _ => (name == "cpu").then_some(Device::Cpu),
        }
    }

    /// The first GPU that this build can compute on, else the processor.
    pub fn detect() -> Device {
        let first = Device::Cuda(0);
        if first.meter().is_some() { first } else { Device::Cpu }
    }

    /// `None` = its memory is the machine's, or there is no such device.
    pub fn meter(self) -> Option<Meter> {
        match self {
            Device::Cuda(ordinal) => cuda::context(ordinal).map(Meter),
            Device::Cpu | Device::CandleCpu => None,
        }
    }

    /// Candle's word for it; `None` = it is not candle that computes there.
    pub(crate) fn open(self) -> Result<Option<candle_core::Device>, Error> {
        match self {
            Device::Cpu => Ok(None),
            Device::CandleCpu => Ok(Some(candle_core::Device::Cpu)),
            Device::Cuda(ordinal) => cuda::open(ordinal).map(Some),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::CandleCpu => f.write_str("candle-cpu"),
            Device::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

// === impl Meter ===

impl Meter {
    /// What the GPU has, and what of that is free now. Nothing, when it has stopped answering.
    pub fn measure(&self) -> DeviceMemory {
        let (available_bytes, total_bytes) = cuda::memory(&self.0).unwrap_or_default();
        DeviceMemory { total_bytes, available_bytes }
    }
}

/// What only a build with the feature can ask.
#[cfg(feature = "cuda")]
mod cuda {
    use std::sync::Arc;

    use candle_core::cuda_backend::cudarc::driver::CudaContext;

    use super::Device;
    use crate::Error;

    pub type Context = Arc<CudaContext>;

    pub fn open(ordinal: usize) -> Result<candle_core::Device, Error> {
        if context(ordinal).is_none() {
            return Err(Error::NoDevice {
                bound: "a GPU that is there",
                value: Device::Cuda(ordinal).to_string(),
            });
        }
        Ok(candle_core::Device::new_cuda(ordinal)?)
    }

    pub fn context(ordinal: usize) -> Option<Context> {
        let count = CudaContext::device_count().ok()?;
        (ordinal < usize::try_from(count).ok()?).then(|| CudaContext::new(ordinal).ok()).flatten()
    }

    /// Free and all bytes.
    pub fn memory(context: &Context) -> Option<(u64, u64)> {
        let (available, total) = context.mem_get_info().ok()?;
        Some((available as u64, total as u64))
    }
}

#[cfg(not(feature = "cuda"))]
mod cuda {
    use super::Device;
    use crate::Error;

    /// There is none.
    pub type Context = std::convert::Infallible;

    pub fn open(ordinal: usize) -> Result<candle_core::Device, Error> {
        let value = Device::Cuda(ordinal).to_string();
        Err(Error::NoDevice { bound: "cpu, this build has no CUDA", value })
    }

    pub fn context(_ordinal: usize) -> Option<Context> {
        None
    }

    pub fn memory(context: &Context) -> Option<(u64, u64)> {
        match *context {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_the_names_that_they_are_told_by() {
        for device in [Device::Cpu, Device::Cuda(0), Device::Cuda(13)] {
            assert_eq!(Device::from_name(&device.to_string()), Some(device));
        }
        for wrong in ["", "cuda", "cuda:", "cuda:-1", "cuda:+1", "cuda:x", "CPU", "candle-cpu", "metal"] {
            assert_eq!(Device::from_name(wrong), None, "{wrong}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_build_without_cuda_says_so() {
        assert_eq!(Device::detect(), Device::Cpu);
        assert!(Device::Cuda(0).meter().is_none());
        let error = Device::Cuda(1).open().unwrap_err();
        assert_eq!(error.to_string(), "`device` must be cpu, this build has no CUDA, got cuda:1");
    }
}
