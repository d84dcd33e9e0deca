//! Tells the processor's name, its cores, and the instructions that it lacks for int8.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    thread,
};

/// Returns the cores that this process may use; 1 if the system does not tell.
pub(super) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Returns the most threads that a model may have on a device: four per core, and 16 on small machines. The cores of a
/// container can be a fraction of the machine's and change while it runs, and a GPU may be fed by more threads than
/// there are cores. Beyond that, threads only cost memory.
pub(super) fn most_threads() -> usize {
    most_threads_of(cores())
}

fn most_threads_of(cores: usize) -> usize {
    cores.saturating_mul(4).max(16)
}

/// Returns the name that the processor gives itself, if the system tells it in a file.
pub(super) fn cpu() -> Option<String> {
    // Only the first lines are read: on a machine with many cores the kernel needs a while to make all of them.
    let lines = BufReader::new(File::open("/proc/cpuinfo").ok()?).lines().map_while(io::Result::ok);
    name(lines)
}

/// Returns the name in the first processor's lines; for an Arm processor, the numbers of its maker and of its part.
fn name(lines: impl Iterator<Item = String>) -> Option<String> {
    let (mut maker, mut part) = (None, None);
    for line in lines {
        let Some((field, value)) = line.split_once(':') else { continue };
        let value = value.trim().to_owned();
        match field.trim() {
            "model name" if !value.is_empty() => return Some(value),
            "CPU implementer" => maker = maker.or(Some(value)),
            "CPU part" => part = part.or(Some(value)),
            _ => {}
        }
        if let (Some(maker), Some(part)) = (&maker, &part) {
            return Some(format!("implementer {maker} part {part}"));
        }
    }
    None
}

/// Returns the instructions that int8 needs and this CPU lacks. Without them, int8 is slower than fp32.
pub(super) fn missing_for_int8() -> Option<&'static str> {
    #[cfg(target_arch = "x86_64")]
    return (!std::arch::is_x86_feature_detected!("avx2")).then_some("AVX2");
    #[cfg(target_arch = "aarch64")]
    return (!std::arch::is_aarch64_feature_detected!("dotprod")).then_some("dot products (asimddp)");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return Some("AVX2 (x86-64) or dot products (64-bit Arm)");
}

#[cfg(test)]
mod tests {
    use super::{most_threads_of, name};

    #[test]
    fn small_machines_may_have_16_threads_and_others_4_per_core() {
        for (cores, most) in [(1, 16), (2, 16), (4, 16), (5, 20), (64, 256)] {
            assert_eq!(most_threads_of(cores), most);
        }
    }

    #[test]
    fn a_processor_has_a_name() {
        let name = |text: &str| name(text.lines().map(str::to_owned));
        assert_eq!(
            name("processor\t: 0\nmodel name\t: Some CPU @ 2.10GHz\nmodel name: other").as_deref(),
            Some("Some CPU @ 2.10GHz")
        );
        let arm = "processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd0c\n";
        assert_eq!(name(arm).as_deref(), Some("implementer 0x41 part 0xd0c"));
        assert_eq!(name("processor: 0\nnonsense\n"), None);
        assert_eq!(name(""), None);
    }
}
