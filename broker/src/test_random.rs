//! Seeded randomness for tests: prints its seed on failure and takes `SEED=`.

/// A small generator (splitmix64); the same seed gives the same run on every machine.
#[derive(Debug)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let at = usize::try_from(self.below(from.len() as u64)).expect("a slice index");
        &from[at]
    }

    /// Runs `test` with seeds 0, 1, .. or with the one in `SEED`, naming the seed that failed.
    pub(crate) fn each(seeds: u64, test: impl Fn(&mut Random)) {
        let seeds = match std::env::var("SEED") {
            Ok(seed) => {
                let seed = seed.parse().expect("SEED is a number");
                seed..=seed
            }
            Err(_) => 0..=seeds - 1,
        };
        for seed in seeds {
            let _named = Named(seed);
            test(&mut Random::new(seed));
        }
    }
}

struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with SEED={}", self.0);
        }
    }
}
