// The official `ollama` client for JavaScript: chat, streams, tools, formats, embeddings, models, and what goes wrong.
//
// Usage: node ollama_client.mjs SCRIPTED    (OLLAMA_HOST and SCRIPTED: see ollama_client.py)

import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

// Node looks for packages beside the script; these are under the target folder.
const require = createRequire(pathToFileURL(path.join(process.env.CARAVAN_NODE_MODULES, 'here.js')))
const { Ollama } = require('ollama')

const MODEL = 'smollm2'
const GREEDY = { temperature: 0, num_predict: 24 }
const QUESTION = [{ role: 'user', content: 'What is the capital of France? Answer in one sentence.' }]
const SCHEMA = {
  type: 'object',
  properties: { name: { type: 'string', maxLength: 20 }, is_capital: { type: 'boolean' } },
  required: ['name', 'is_capital'],
  additionalProperties: false,
}
const WEATHER = {
  type: 'function',
  function: {
    name: 'weather',
    description: 'The weather of a city',
    parameters: { type: 'object', properties: { city: { type: 'string', description: 'Where' } }, required: ['city'] },
  },
}

async function chatAndGenerate(client) {
  const answer = await client.chat({ model: MODEL, messages: QUESTION, options: GREEDY })
  assert.match(answer.message.content, /Paris/)
  assert.ok(answer.done && answer.eval_count > 0 && answer.prompt_eval_count > 0)

  let text = ''
  let last
  for await (const piece of await client.chat({ model: MODEL, messages: QUESTION, options: GREEDY, stream: true })) {
    text += piece.message.content
    last = piece
  }
  assert.equal(text, answer.message.content)
  assert.ok(last.done && last.total_duration > 0)

  const generated = await client.generate({ model: MODEL, prompt: '1 2 3 4', raw: true, options: GREEDY })
  assert.match(generated.response, /5/)
  const shaped = await client.chat({ model: MODEL, messages: QUESTION, format: SCHEMA, options: { num_predict: 64 } })
  assert.equal(typeof JSON.parse(shaped.message.content).is_capital, 'boolean')

  const burst = await Promise.all(
    Array.from({ length: 20 }, (_, number) => client.embeddings({ model: 'minilm', prompt: `text ${number}` })),
  )
  assert.ok(burst.every((one) => one.embedding.length === 384))
  const embedded = await client.embed({ model: 'minilm', input: ['one', 'two'], dimensions: 64 })
  assert.deepEqual(embedded.embeddings.map((one) => one.length), [64, 64])
}

async function models(client) {
  assert.match((await client.version()).version, /^\d+\.\d+\.\d+$/)
  const names = async () => (await client.list()).models.map((model) => model.name)
  assert.ok((await names()).includes(`${MODEL}:latest`))
  const shown = await client.show({ model: MODEL })
  assert.equal(shown.details.family, 'llama')
  assert.ok(shown.capabilities.includes('completion') && shown.model_info['llama.context_length'] === 8192)
  const running = (await client.ps()).models
  assert.ok(running.some((model) => model.name === `${MODEL}:latest` && !Number.isNaN(Date.parse(model.expires_at))))

  const steps = []
  for await (const step of await client.create({ model: 'pirate', from: MODEL, system: 'You are a pirate.', stream: true })) {
    steps.push(step.status)
  }
  assert.equal(steps.at(-1), 'success')
  assert.match((await client.show({ model: 'pirate' })).system, /pirate/)
  await client.copy({ source: 'pirate', destination: 'me/pirate:v2' })
  assert.ok((await names()).includes('me/pirate:v2'))
  for (const model of ['pirate', 'me/pirate:v2']) {
    assert.equal((await client.delete({ model })).status, 'success')
  }
  assert.ok(!(await names()).some((name) => name.includes('pirate')))
}

async function toolsAndThinking(scripted) {
  const client = new Ollama({ host: scripted, headers: { Authorization: 'Bearer sesame' } })
  const say = '[[say <tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>]]'
  const messages = [{ role: 'user', content: say }]
  const answer = await client.chat({ model: 'toolful', messages, tools: [WEATHER] })
  assert.deepEqual(answer.message.tool_calls[0].function.arguments, { city: 'Oslo' })
  messages.push(answer.message, { role: 'tool', tool_name: 'weather', content: 'sunny' })
  messages.push({ role: 'user', content: '[[say It is sunny.]]' })
  const end = await client.chat({ model: 'toolful', messages, tools: [WEATHER] })
  assert.equal(end.message.content, 'It is sunny.')

  const thought = await client.chat({
    model: 'thinker',
    messages: [{ role: 'user', content: '[[say <think>Hm.</think>Yes.]]' }],
    think: true,
  })
  assert.deepEqual([thought.message.thinking, thought.message.content], ['Hm.', 'Yes.'])

  const keyed = new Ollama({ host: `${scripted}/k/sesame` })
  assert.equal((await keyed.generate({ model: 'm', prompt: '[[say yes]]' })).response, 'yes')
  await assert.rejects(new Ollama({ host: scripted }).list(), { name: 'ResponseError', status_code: 401, message: /^unauthorized: / })
}

// Aborting closes the connection, as a person does who presses "stop".
async function abort(scripted) {
  const client = new Ollama({ host: `${scripted}/k/sesame` })
  // So long that even a busy machine is in its middle.
  const story = `[[say ${'And they went on. '.repeat(160)}]]`
  for (let round = 0; round < 8; round++) {
    const stream = await client.generate({ model: 'm', prompt: story, stream: true })
    await assert.rejects(
      async () => {
        for await (const _ of stream) stream.abort()
      },
      { name: 'AbortError' },
    )
  }
  // These were more than there are slots.
  assert.equal((await client.generate({ model: 'm', prompt: '[[say yes]]' })).response, 'yes')
}

async function errors(client) {
  const refused = (call, status_code, message) => assert.rejects(call, { name: 'ResponseError', status_code, message })
  await refused(client.chat({ model: 'nope', messages: QUESTION }), 404, "model 'nope' not found")
  await refused(client.chat({ model: 'nope', messages: QUESTION, stream: true }), 404, "model 'nope' not found")
  await refused(client.chat({ model: MODEL, messages: QUESTION, think: true }), 400, /does not support thinking/)
  await refused(client.chat({ model: MODEL, messages: QUESTION, tools: [WEATHER] }), 400, /does not support tools/)
  await refused(client.generate({ model: 'minilm', prompt: 'a' }), 400, '"minilm" does not support generate')
  await refused(client.embed({ model: 'nope', input: 'a' }), 404, /not found/)
  await refused(client.show({ model: 'nope' }), 404, /not found/)
  await refused(client.delete({ model: 'nope' }), 404, "model 'nope' not found")
  await refused(client.copy({ source: 'nope', destination: 'b' }), 404, 'model "nope" not found')
  await refused(client.create({ model: 'a b', from: MODEL }), 400, 'invalid model name')
}

const scripted = process.argv[2]
const client = new Ollama({ host: process.env.OLLAMA_HOST })
await chatAndGenerate(client)
await models(client)
await toolsAndThinking(scripted)
await abort(scripted)
await errors(client)
