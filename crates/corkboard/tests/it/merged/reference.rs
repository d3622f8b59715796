//! DuckDB's answers, from a process that stays.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::Value;

use crate::{answers::Answers, delta};

pub(super) struct Reference {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Reference {
    pub(super) fn start() -> Self {
        let mut command = Command::new(delta::python());
        command.env("PYTHONDONTWRITEBYTECODE", "1").arg(delta::reference("second_opinion.py"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (questions, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, questions, answers: BufReader::new(answers) }
    }

    /// The views over the records of a ledger, by these definitions.
    pub(super) fn ask(&mut self, ledger: &Path, mut definitions: Value) -> Answers {
        definitions["ledger"] = ledger.to_str().unwrap().into();
        writeln!(self.questions, "{definitions}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: the reference answered {line:?}"))
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
