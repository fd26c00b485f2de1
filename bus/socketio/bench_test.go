package socketio_test

import (
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/limpet-go/limpet/internal/need"
	"github.com/limpet-go/limpet/internal/process"
	"github.com/limpet-go/limpet/internal/redistest"
)

const (
	rounds  = 5     // after one that doesn't count
	pings   = 1000  // in each round, one at a time
	inBatch = 10000 // in each round, 100 at a time
)

// BenchmarkBesideNode measures messages from one process to another over Redis: from
// a node to a node with the npm adapter, from a [socketio.Bridge] to a Bridge, from
// either to the other, and with go-redis alone, which has neither rooms nor events.
//
//	go test -run '^$' -bench BesideNode -benchtime 1x ./bus/socketio
//
// The pairs take turns, so that other work of the machine affects all of them alike.
// Each figure is the median of the rounds. A message has arrived when it reaches the
// connection of a client, framed for a WebSocket.
//
//   - p50-µs and p99-µs are the time that one message takes while no other one is
//     under way: half of a round trip.
//   - alone-µs is the processor time of one message in both processes, without Redis.
//   - publish-µs and receive-µs are the processor time per message in each process
//     when messages are sent by the hundred. A node writes all messages of one turn
//     of its event loop together, so they also arrive together; Emit waits for Redis
//     each time. So compare receivers only with the same sender.
//
// The figures that end in /npm are relative to those of the npm adapter.
func BenchmarkBesideNode(b *testing.B) {
	const folder = "../../internal/interop/testdata/v4"
	node := need.Modules(b, folder)
	for _, adapter := range []string{"current", "sharded", "streams"} {
		b.Run(adapter, func(b *testing.B) {
			// Each pair has a Redis of its own.
			nodePeer := func(addr, room string) *exec.Cmd {
				_, port, _ := net.SplitHostPort(addr)
				return exec.Command(node, "testdata/peer.js", folder, port, adapter, room)
			}
			limpet, raw := goPeer("limpet "+adapter), goPeer("go-redis "+adapter)
			npm := pairOf(b, nodePeer, nodePeer)
			names := []string{"npm", "limpet", "limpet-to-npm", "npm-to-limpet", "go-redis"}
			all := map[string]*pair{
				"npm": npm, "limpet": pairOf(b, limpet, limpet), "go-redis": pairOf(b, raw, raw),
				"limpet-to-npm": pairOf(b, limpet, nodePeer), "npm-to-limpet": pairOf(b, nodePeer, limpet),
			}
			for i := range 1 + rounds {
				for _, name := range names {
					all[name].round(b, i > 0)
				}
			}
			for _, name := range names {
				b.Run(name, func(b *testing.B) {
					b.ReportMetric(0, "ns/op") // of nothing
					for figure, values := range all[name].figures {
						b.ReportMetric(median(values), figure+"-µs")
						if name != "npm" {
							b.ReportMetric(median(values)/median(npm.figures[figure]), figure+"/npm")
						}
					}
				})
			}
		})
	}
}

// A pair is a peer that leads and a peer that follows.
type pair struct {
	lead, follow *process.Process
	commands     int
	figures      map[string][]float64 // microseconds of each round
}

// A starter returns the command that starts a peer with the address of Redis.
type starter func(addr, room string) *exec.Cmd

// goPeer is this program as a peer.
func goPeer(carrier string) starter {
	return func(addr, room string) *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "LIMPET_TEST_PEER="+strings.Join([]string{addr, carrier, room}, ","))
		return cmd
	}
}

// pairOf starts the two peers.
func pairOf(b *testing.B, leads, follows starter) *pair {
	b.Helper()
	addr := redistest.Start(b).Addr
	return &pair{
		follow: process.Start(b, follows(addr, follow)), lead: process.Start(b, leads(addr, lead)),
		figures: make(map[string][]float64),
	}
}

func (p *pair) round(b *testing.B, counts bool) {
	b.Helper()
	oneTimes, oneSent, oneGot := p.send(b, pings, 1)
	_, sent, got := p.send(b, inBatch, 100)
	if !counts {
		return
	}
	slices.Sort(oneTimes)
	for figure, d := range map[string]time.Duration{
		"p50":     oneTimes[len(oneTimes)/2] / 2,
		"p99":     oneTimes[len(oneTimes)*99/100] / 2,
		"alone":   (oneSent + oneGot) / (2 * pings), // each way is a message
		"publish": sent / inBatch,
		"receive": got / inBatch,
	} {
		p.figures[figure] = append(p.figures[figure], float64(d)/float64(time.Microsecond))
	}
}

// send returns the times of the batches, and the processor time of each peer.
func (p *pair) send(b *testing.B, messages, batch int) (times []time.Duration, sent, got time.Duration) {
	b.Helper()
	leads, follows := p.tell(b, p.lead, command{}), p.tell(b, p.follow, command{})
	led := p.tell(b, p.lead, command{Messages: messages, Batch: batch})
	followed := p.tell(b, p.follow, command{})
	return led.Times, led.CPU - leads.CPU, followed.CPU - follows.CPU
}

// tell makes one of the peers carry out a command.
func (p *pair) tell(b *testing.B, to *process.Process, c command) (done report) {
	b.Helper()
	p.commands++
	c.ID = p.commands
	to.Write(b, c)
	process.Await(b, to, "a report", func(reports []report) bool {
		i := slices.IndexFunc(reports, func(r report) bool { return r.ID == c.ID })
		if i >= 0 {
			done = reports[i]
		}
		return i >= 0
	})
	return done
}

func median(values []float64) float64 {
	return slices.Sorted(slices.Values(values))[len(values)/2]
}
