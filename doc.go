// Package limpet documents the toolkit; the code is in its sub-packages.
//
// A limpet goes foraging and always comes home to the same spot on its rock.
// Limpet does that for the clients of Socket.IO and WebSocket servers that run
// on several machines: each client keeps coming home to the backend that knows
// it, and finds a new home at once when that backend is gone.
package limpet
