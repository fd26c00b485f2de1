//go:build linux

// Busbench measures Limpet's bus and hub beside Socket.IO's Redis adapters and
// centrifuge, on one machine:
//
//	go run ./internal/busbench | tee internal/busbench/results/README.md
//
// is how its results in this repository are made, in the root of the repository. That
// takes five minutes, and a machine that does nothing else.
//
// Each peer has a redis-server, a publisher and subscribers, which are processes of their
// own and stay for the whole run. The peers take turns at each case, in rounds. Figures
// are medians of the rounds, after a short one that doesn't count; ratios are to Socket.IO
// with the Redis adapter, and medians of the rounds' own.
//
// At saturation a publisher publishes as fast as it can, and the next message when the
// one before is taken by Redis; with 16 publishers that many are under way at once, as 16
// goroutines or asynchronous functions of one process. The time ends when all subscribers
// have all messages. The latency is measured at a fixed rate, from before a message is
// published until its subscriber has it. A message that is lost or comes twice is an
// error of the case, and the exit code is then 1.
//
// Then WebSocket clients of this process connect to a hub of each peer, without Redis, and
// get broadcasts.
//
// All is on 127.0.0.1, bounded in time, and whatever was started ends with it, on an
// interrupt, too. It needs Linux and redis-server. Peers that aren't installed are left
// out: Socket.IO needs node and npm ci in internal/interop/testdata/v4, and centrifuge
// its Go modules.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/limpet-go/limpet/internal/busbench/role"
)

// roleOf is the environment variable that makes this program a role of a peer: it holds
// the arguments of role.Main.
const roleOf = "LIMPET_BUSBENCH_ROLE"

func main() {
	if err := act(); err != nil {
		fmt.Fprintln(os.Stderr, "busbench:", err)
		os.Exit(1)
	}
}

// act does what this process is for.
func act() error {
	if args := strings.Fields(os.Getenv(roleOf)); len(args) > 0 {
		return role.Main(args, limpet)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return run(ctx, os.Stdout, os.Args[1:])
}

// A bench is what all cases share.
type bench struct {
	time   time.Duration // of a case
	least  int           // messages of a case
	rate   int           // messages a second where latency is measured
	sizes  []int         // of messages, in bytes
	nodes  int           // subscribers of the topic all
	many   int           // publishers at once
	count  int           // WebSocket members
	sends  int           // broadcasts to them
	settle time.Duration // before memory is read
	dir    string        // for programs, removed at the end
}

// run does what the flags say, and prints the tables to w.
func run(ctx context.Context, w io.Writer, args []string) error {
	b := &bench{sizes: []int{64, 1024}}
	fs := flag.NewFlagSet("busbench", flag.ContinueOnError)
	rounds := fs.Int("rounds", 3, "how `often` each case is measured at each peer")
	only := fs.String("peers", "", "`names` of peers, a comma-separated list; none: all that are installed")
	base := fs.String("base", "Socket.IO", "the `peer` that ratios are to")
	var builds []string
	fs.Func("beside", "measure the Limpet of this `file`, another build of busbench, too; repeatable", func(file string) error {
		builds = append(builds, file)
		return nil
	})
	fs.DurationVar(&b.time, "time", 500*time.Millisecond, "how long a case is measured, about")
	fs.IntVar(&b.least, "least", 500, "`messages` of a case at least")
	fs.DurationVar(&b.settle, "settle", time.Second, "how long to wait before memory is read")
	fs.IntVar(&b.rate, "rate", 500, "`messages` a second where latency is measured")
	fs.IntVar(&b.nodes, "nodes", 4, "`subscribers` of the cases with several, 2 or more")
	fs.IntVar(&b.many, "publishers", 16, "`publishers` of the cases with several, 2 or more")
	fs.IntVar(&b.count, "members", 2000, "WebSocket `members` of a hub, 2 or more; 0: none")
	fs.IntVar(&b.sends, "broadcasts", 20, "`messages` to all members")
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	case fs.NArg() > 0 || min(*rounds, b.rate, b.sends, b.least, int(b.time)) < 1 || min(b.nodes, b.many) < 2 || b.count < 0 || b.count == 1:
		return errors.New("wrong arguments: see -h")
	}
	var err error
	if b.dir, err = os.MkdirTemp("", "limpet-busbench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	all, missing, err := peers(ctx, b.dir, builds, *only)
	if err != nil {
		return err
	}
	r := &report{bench: b, rounds: *rounds, base: *base, missing: missing}
	if err := b.messages(ctx, all, r); err != nil {
		return err
	}
	if b.count > 0 {
		if err := b.hubs(ctx, all, r); err != nil {
			return err
		}
	}
	progress("")
	return r.markdown(w, all)
}

// progress shows what is being done.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "\r"+format+"\x1b[K", args...)
}
