// Provisional; written anew by `x wasm`.
export interface User { userId: string; username: string; email?: string; createdAt?: string }
export interface Author { userId: string; username: string }
export interface Message { messageId: string; channelId: string; authorId: string; content: string; createdAt: string; author?: Author; rev: number; nonce?: string; replyTo?: string }
export interface Guild { guildId: string; name: string; createdAt: string; rev: number; ownerId?: string; visibility?: "public" | "private" }
export interface Channel { channelId: string; guildId: string; name: string; createdAt: string; rev: number; lastMessageId?: string }
export interface MessageAck { nonce: string; messageId: string; channelId: string }
export interface SdkError { code: string; message: string; retryAfterMs?: number }
export interface Splice { at: number; remove: number; insert: Message[] }
export type Change =
  | { kind: "connection"; state: "connecting" | "ready" | "waiting" | "ended"; retryInMs?: number; reason?: "unauthorized" | "evicted" | "closed" }
  | { kind: "guilds" }
  | { kind: "channels"; guildId: string }
  | { kind: "messages"; channelId: string; splices: Splice[]; hasOlder: boolean }
  | { kind: "activity"; channelId: string; messageId: string; authorId: string }
  | { kind: "typing"; channelId: string; userId: string; timestamp: number }
  | { kind: "failed"; error: SdkError };
