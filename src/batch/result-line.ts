/**
 * One result in the OpenAI batch output form. Nothing in it depends on when or in which company it ran, so a repeated
 * job repeats its lines.
 */
import type { CompletionText } from '../engine/completion.js';
import type { PreparedRequest } from './prompt-file.js';
import { type BadRequest, CHAT_URL } from './request.js';

export function resultLine(request: PreparedRequest, completion: CompletionText, modelName: string): string {
  const { customId } = request;
  const chat = request.url === CHAT_URL;
  const content = completion.text ?? '';
  const promptTokens = request.promptIds.length;
  const completionTokens = completion.tokenIds.length;
  const body = {
    id: `cmpl-${customId}`,
    object: chat ? 'chat.completion' : 'text_completion',
    model: modelName,
    choices: [
      {
        index: 0,
        ...(chat ? { message: { role: 'assistant', content } } : { text: content }),
        // Models without a tokenizer have no text; their ids are the result.
        ...(completion.text === undefined ? { token_ids: completion.tokenIds } : {}),
        logprobs: null,
        finish_reason: completion.finishReason,
      },
    ],
    usage: {
      prompt_tokens: promptTokens,
      completion_tokens: completionTokens,
      total_tokens: promptTokens + completionTokens,
    },
  };
  return JSON.stringify({
    id: `batch_req_${customId}`,
    custom_id: customId,
    response: { status_code: 200, request_id: `req_${customId}`, body },
    error: null,
  });
}

export function errorLine({ customId, error }: BadRequest): string {
  return JSON.stringify({ id: `batch_req_${customId}`, custom_id: customId, response: null, error });
}
