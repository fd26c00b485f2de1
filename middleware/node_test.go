package middleware_test

import (
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/need"
	"github.com/limpet-go/limpet/internal/process"
	limpet "github.com/limpet-go/limpet/middleware"
)

// nodeHints is a Node server that sends 103 Early Hints as the first thing that its
// handler does. Node sends the 100 Continue right before that, in the same segment
// often, while the gateway starts to read the body.
const nodeHints = `
const server = require("http").createServer((req, res) => {
  if (req.method === "GET") return res.end("SECRET".repeat(300));
  res.writeEarlyHints({ link: "</a.css>; rel=preload; as=style" });
  req.resume().on("end", () => res.writeHead(200, { connection: "close", "content-length": 2 }).end("ok"));
});
server.listen(0, "127.0.0.1", () => console.log("http://127.0.0.1:" + server.address().port));
`

// Node's 100 and 103 reach the client one after the other and whole, and hold nothing
// of another client's answer.
func TestHintsOfNode(t *testing.T) {
	t.Parallel()
	node := process.Start(t, exec.Command(need.Node(t), "-e", nodeHints))
	url := strings.TrimSpace(node.AwaitLine(t, `^http://`))
	srv, _ := serve(t, balancer.Static("a="+url), &limpet.Options{Affinity: &affinity.Hash{Key: &affinity.ClientAddr{}}})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				if body, err := other(srv); body != secret || err != nil {
					t.Errorf("another client got %d bytes, %v", len(body), err)
				}
				told, answer := askHTTP1(t, srv)
				if !slices.Equal(told, []string{"100", "103", "200"}) || answer != "ok" {
					t.Errorf("told %v with %q", told, answer)
				}
			}
		})
	}
	wg.Wait()
}
