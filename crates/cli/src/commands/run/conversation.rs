//! The prompt loop: reads what is typed, obeys commands, streams answers, keeps what was said.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a terminal that goes away ends its programs")]

use anyhow::Result;
use api::ollama::{ChatRequest, ChatResponse, Message, Progress};
use futures::StreamExt;
use node::Sources;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    Wishes,
    answer::Answer,
    attach::{Attached, begins_with_a_file},
    editor::{LineEditor, PROMPT, QUOTES, Typed},
    help, load, save,
    set::{Outcome, parameter_lines, set},
    show, sign_of_life,
};
use crate::{
    client::{Client, is_not_found},
    commands::{
        list,
        show::{Shown, overview},
    },
    output::told,
};

/// A refusal with one of these is about this question only; the conversation goes on.
const ABOUT_THINKING: [&str; 2] = ["does not support thinking", "invalid think value"];

struct Conversation<'a> {
    client: &'a Client,
    wishes: Wishes,
    shown: Shown,
    /// Set by `/set system`; the model has its own.
    system: Option<String>,
    messages: Vec<Message>,
    /// The answer that is being shown.
    answer: Option<Answer>,
}

enum Next {
    Prompt,
    Leave,
}

pub async fn hold(client: &Client, wishes: Wishes, shown: Shown, sources: &Sources) -> Result<()> {
    load(client, &wishes).await?;
    let mut editor = LineEditor::new(sources)?;
    let mut conversation =
        Conversation { client, wishes, shown, system: None, messages: Vec::new(), answer: None };
    conversation.replay()?;
    loop {
        let text = match tokio::task::block_in_place(|| editor.read())? {
            Typed::Text(text) => text,
            Typed::Interrupt { line_was_empty } => {
                if line_was_empty {
                    println!("Use Ctrl + d or /bye to exit.");
                }
                continue;
            }
            Typed::End => return Ok(()),
        };
        let mut interrupt = signal(SignalKind::interrupt())?;
        let next = tokio::select! {
            next = conversation.obey(&text, &mut editor) => next?,
            // What was being done is dropped: a stream closes its connection, which ends the sequence on the worker.
            _ = interrupt.recv() => conversation.interrupt()?,
        };
        if let Next::Leave = next {
            return Ok(());
        }
    }
}

// === impl Conversation ===

impl Conversation<'_> {
    async fn obey(&mut self, text: &str, editor: &mut LineEditor) -> Result<Next> {
        let words: Vec<&str> = text.split_whitespace().collect();
        match *words.as_slice() {
            [] => {}
            ["/bye" | "/exit", ..] => return Ok(Next::Leave),
            ["/clear", ..] => {
                self.forget();
                println!("Cleared session context");
            }
            ["/list", ref prefix @ ..] => list(self.client, prefix.first().copied()).await?,
            ["/load", model] => self.load(model).await?,
            ["/load", ..] => println!("Usage:\n  /load <modelname>"),
            ["/save", model] => self.save(model).await?,
            ["/save", ..] => println!("Usage:\n  /save <modelname>"),
            ["/set", ref wish @ ..] => self.set(wish, text, editor),
            ["/show", ref topic @ ..] => self.show(topic.first().copied()).await?,
            ["/?" | "/help", ref topic @ ..] => eprint!("{}", help::help(topic.first().copied())),
            [command, ..] if command.starts_with('/') && !self.is_file(text) => {
                println!("Unknown command '{command}'. Type /? for help");
            }
            _ => self.ask(text).await?,
        }
        Ok(Next::Prompt)
    }

    fn is_file(&self, text: &str) -> bool {
        self.wishes.takes_files && begins_with_a_file(text.trim_start())
    }

    /// The messages of the Modelfile, as if they had been said here. The server puts them before ours.
    fn replay(&self) -> Result<()> {
        for Message { role, content, .. } in &self.shown.response.messages {
            match role.as_str() {
                "user" => println!("{PROMPT}{content}"),
                "assistant" => {
                    let mut answer = Answer::new(&Wishes { verbose: false, ..self.wishes.clone() });
                    answer.content(content)?;
                    answer.finish(&Default::default())?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.messages.clear();
        if let Some(content) = self.system.clone() {
            self.messages.push(Message { role: "system".to_owned(), content, ..Message::default() });
        }
    }

    async fn load(&mut self, model: &str) -> Result<()> {
        println!("Loading model '{model}'");
        let mut wishes = Wishes { model: model.to_owned(), ..self.wishes.clone() };
        let found = async {
            let shown = show(self.client, model).await?;
            wishes.suit(&shown);
            load(self.client, &wishes).await?;
            anyhow::Ok(shown)
        };
        match found.await {
            Ok(shown) => {
                (self.wishes, self.shown, self.system) = (wishes, shown, None);
                self.forget();
                self.replay()
            }
            Err(error) if is_not_found(&error) => {
                println!("Couldn't find model '{model}'");
                Ok(())
            }
            Err(error) => {
                println!("error: {}", told(&error));
                Ok(())
            }
        }
    }

    /// Makes a model of the present one, what was set, and what was said.
    async fn save(&self, model: &str) -> Result<()> {
        let mut request = save::ground(self.client, &self.wishes.model, &self.shown.response).await;
        request.model = model.to_owned();
        request.stream = Some(false);
        if let Some(system) = &self.system {
            request.system.clone_from(system);
        }
        if !self.wishes.options.is_empty() {
            request.parameters.get_or_insert_default().extend(self.wishes.options.clone());
        }
        let said = self.messages.iter().filter(|message| message.role != "system");
        // Without any, those of the present model stay.
        if said.clone().next().is_some() {
            let earlier = self.shown.response.messages.iter();
            request.messages = earlier.chain(said).cloned().collect();
        }
        match self.client.post::<Progress>("/api/create", &request).await {
            Ok(_) => println!("Created new model '{model}'"),
            Err(error) if error.to_string().contains("invalid model name") => {
                println!("error: The model name '{model}' is invalid");
            }
            Err(error) => println!("error: {}", told(&error)),
        }
        Ok(())
    }

    fn set(&mut self, wish: &[&str], text: &str, editor: &mut LineEditor) {
        match set(&mut self.wishes, wish, text) {
            Outcome::Said(text) => println!("{text}"),
            Outcome::Usage(text) => eprint!("{text}"),
            Outcome::KeepHistory(keep) => editor.keeps_history = keep,
            Outcome::Thinks(text) => {
                println!("{text}");
                if !self.shown.can("thinking") {
                    eprintln!("warning: model \"{}\" does not support thinking output", self.wishes.model);
                }
            }
            Outcome::System(content) => {
                // A second thought replaces the first, as long as nothing was said in between.
                self.messages.pop_if(|last| last.role == "system");
                self.system = Some(content.clone());
                self.messages.push(Message { role: "system".to_owned(), content, ..Message::default() });
                println!("Set system message.");
            }
        }
    }

    async fn show(&mut self, topic: Option<&str>) -> Result<()> {
        self.shown = show(self.client, &self.wishes.model).await?;
        let Shown { response, more } = &self.shown;
        let or = |text: &str, fallback: &str| match text {
            "" => println!("{fallback}"),
            text => println!("{text}"),
        };
        match topic {
            Some("info") => print!("{}", overview(response, more, false)),
            Some("license") => or(&response.license, "No license was specified for this model."),
            Some("modelfile") => println!("{}", response.modelfile),
            Some("parameters") => self.show_parameters(),
            Some("system") => {
                let system = self.system.as_deref().unwrap_or(&response.system);
                or(system, "No system message was specified for this model.");
            }
            Some("template") => or(&response.template, "No prompt template was specified for this model."),
            Some(other) => println!("Unknown command '/show {other}'. Type /? for help"),
            None => eprint!("{}", help::SHOW),
        }
        Ok(())
    }

    fn show_parameters(&self) {
        println!("Model defined parameters:");
        match self.shown.response.parameters.as_str() {
            "" => println!("  No additional parameters were specified for this model."),
            parameters => parameters.lines().for_each(|line| println!("  {line}")),
        }
        println!();
        if !self.wishes.options.is_empty() {
            println!("User defined parameters:");
            parameter_lines(&self.wishes.options).for_each(|line| println!("{line}"));
            println!();
        }
    }

    async fn ask(&mut self, text: &str) -> Result<()> {
        let text = text.trim();
        let text = match text.strip_prefix(QUOTES) {
            Some(inner) => inner.strip_suffix(QUOTES).unwrap_or(inner),
            None => text,
        };
        let Attached { text, images } = match self.wishes.attach(text.to_owned()) {
            Ok(attached) => attached,
            Err(error) => {
                println!("error: {}", told(&error));
                return Ok(());
            }
        };
        self.messages.push(Message { role: "user".to_owned(), content: text, images, ..Message::default() });
        match self.chat().await {
            Err(error) if ABOUT_THINKING.iter().any(|text| error.to_string().contains(text)) => {
                println!("error: {error}");
                self.messages.pop_if(|last| last.role == "user");
                Ok(())
            }
            other => other,
        }
    }

    /// Streams one answer to the screen and into the messages, where it stays as far as it came.
    async fn chat(&mut self) -> Result<()> {
        let request = ChatRequest {
            model: self.wishes.model.clone(),
            messages: self.messages.clone(),
            format: self.wishes.format.clone(),
            keep_alive: self.wishes.keep_alive,
            options: Some(self.wishes.options.clone()).filter(|options| !options.is_empty()),
            think: self.wishes.think.clone(),
            ..ChatRequest::default()
        };
        let answer = self.answer.insert(Answer::new(&self.wishes));
        let sign = sign_of_life();
        let mut lines = std::pin::pin!(self.client.stream::<ChatResponse, _>("/api/chat", &request).await?);
        self.messages.push(Message { role: "assistant".to_owned(), ..Message::default() });
        while let Some(line) = lines.next().await {
            sign.finish_and_clear();
            let line = line?;
            let thought = line.message.thinking.unwrap_or_default();
            answer.thinking(&thought)?;
            answer.content(&line.message.content)?;
            if let Some(reply) = self.messages.last_mut() {
                reply.content.push_str(&line.message.content);
                if !thought.is_empty() {
                    reply.thinking.get_or_insert_default().push_str(&thought);
                }
            }
            if line.done {
                answer.finish(&line.metrics)?;
            }
        }
        self.answer = None;
        Ok(())
    }

    /// Ctrl + c: what has come stays on the screen and in the messages.
    fn interrupt(&mut self) -> Result<Next> {
        match self.answer.take() {
            Some(mut answer) => answer.interrupt()?,
            None => println!(),
        }
        Ok(Next::Prompt)
    }
}
