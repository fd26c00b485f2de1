// Package hostile holds tables of what no well-behaved client or backend sends,
// each line with what a gateway may make of it. Its tests speak over sockets and
// read what comes with a parser of their own, which knows nothing of net/http's
// leniency.
//
//   - TestRequests and TestHTTP2: requests, with what may reach the backend and
//     what may come back.
//   - TestAnswers: answers of backends, with what the client may see.
//   - TestPeers: the same requests through nginx and HAProxy, to compare.
//
// Behind each line come other clients, who must get their own answers.
package hostile
