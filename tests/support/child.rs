//! The test binary run again as a child process: for what concerns a whole process (its signals,
//! its descriptors).
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Set in the child, to the part it plays.
const PART: &str = "TIDEGATE_TEST_CHILD";

/// What this process is to do as a child, if it is one. The test that starts a child calls this
/// first and does the child's part instead of its own.
pub fn part() -> Option<String> {
    std::env::var(PART).ok()
}

/// The words a child says to its parent are marked, because the test harness says things too.
pub fn say(words: &str) {
    println!("\nchild says: {words}");
    std::io::stdout().flush().unwrap();
}

/// In the child: the next line of the parent's, or `None` if the parent is gone.
pub fn hear() -> Option<String> {
    let mut line = String::new();
    let n = std::io::stdin().read_line(&mut line).unwrap();
    (n > 0).then(|| line.trim_end().to_owned())
}

/// A child process; killed and waited for when dropped.
pub struct Helper {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Helper {
    /// Runs the test `name` of this binary again, in the part `part`.
    pub fn start(name: &str, part: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture", "--test-threads=1"])
            .env(PART, part)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Helper { child, stdin, stdout }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn tell(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
        self.stdin.flush().unwrap();
    }

    /// The next words of the child. Panics when it has ended without them.
    #[track_caller]
    pub fn hear(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            let n = self.stdout.read_line(&mut line).unwrap();
            assert!(n > 0, "the child ended without a word");
            if let Some(words) = line.trim_end().strip_prefix("child says: ") {
                return words.to_owned();
            }
        }
    }

    /// kill(1), for what `std` has no call: stopping and continuing.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for a stopped child to be stopped, or a continued one to run (proc(5), `State`).
    pub fn wait_for_state(&self, wanted: impl Fn(char) -> bool) {
        let start = std::time::Instant::now();
        loop {
            let status = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
            // The name, in parentheses, may hold anything.
            let state = status.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
            if state.is_some_and(&wanted) {
                return;
            }
            assert!(start.elapsed() < crate::support::PATIENCE, "the child is in state {state:?}");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
