//! What the prompt says about itself.

/// The text for `/?` and what follows it.
pub fn help(topic: Option<&str>) -> &'static str {
    match topic {
        Some("set" | "/set") => SET,
        Some("show" | "/show") => SHOW,
        Some("shortcut" | "shortcuts") => SHORTCUTS,
        _ => COMMANDS,
    }
}

const COMMANDS: &str = r#"Available Commands:
  /set            Set session variables
  /show           Show model information
  /list           List the models of the server
  /load <model>   Load another model, without what was said
  /save <model>   Save this session as a model
  /clear          Clear session context
  /bye            Exit
  /?, /help       Help for a command
  /? shortcuts    Help for keyboard shortcuts

Use """ to begin a multi-line message.
"#;

pub const SET: &str = r#"Available Commands:
  /set parameter ...     Set a parameter
  /set system <string>   Set the system message
  /set history           Keep what is typed in the history
  /set nohistory         Do not keep what is typed
  /set wordwrap          Break lines between words
  /set nowordwrap        Leave lines to the terminal
  /set format json       Have answers in JSON
  /set noformat          Have answers in any form
  /set verbose           Show timings after each answer
  /set quiet             Do not show timings
  /set think [level]     Have the model think first; a level is one of
                         true, false, low, medium, high and max
  /set nothink           Have the model answer at once

"#;

pub const SHOW: &str = r#"Available Commands:
  /show info         Show an overview of the model
  /show license      Show the license
  /show modelfile    Show the Modelfile
  /show parameters   Show the parameters
  /show system       Show the system message
  /show template     Show the prompt template

"#;

pub const PARAMETERS: &str = r#"Available Parameters:
  /set parameter seed <int>             Seed of the random numbers
  /set parameter num_predict <int>      Most tokens of an answer
  /set parameter top_k <int>            Pick from so many tokens
  /set parameter top_p <float>          Pick from the likeliest, up to this sum
  /set parameter min_p <float>          Drop what is less likely than this part
                                        of the likeliest
  /set parameter num_ctx <int>          Set the context size
  /set parameter temperature <float>    Set how adventurous answers are
  /set parameter repeat_penalty <float> How strongly to penalize repetitions
  /set parameter repeat_last_n <int>    How far back to look for repetitions
  /set parameter num_gpu <int>          How many blocks go to a GPU
  /set parameter stop <string> ...      Texts at which an answer ends

"#;

const SHORTCUTS: &str = r"Available keyboard shortcuts:
  Ctrl + a            Move to the beginning of the line (Home)
  Ctrl + e            Move to the end of the line (End)
   Alt + b            Move back one word
   Alt + f            Move forward one word
  Ctrl + k            Delete what is behind the cursor
  Ctrl + u            Delete what is before the cursor
  Ctrl + w            Delete the word before the cursor
  Ctrl + p, Ctrl + n  Go back and forth in the history (Up, Down)

  Ctrl + l            Clear the screen
  Ctrl + g            Open an editor for the text
  Ctrl + z            Suspend the program
  Ctrl + c            Stop the answer
  Ctrl + d            Exit (/bye)

";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_fits_a_terminal_of_80_cells() {
        for text in [COMMANDS, SET, SHOW, PARAMETERS, SHORTCUTS] {
            for line in text.lines() {
                assert!(line.chars().count() <= 79, "{line}");
            }
        }
    }
}
