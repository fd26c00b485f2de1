package nats

import (
	"context"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// fakeMsg is a message that a consumer gives to its handler.
type fakeMsg struct {
	jetstream.Msg
	meta jetstream.MsgMetadata
}

func (m fakeMsg) Metadata() (*jetstream.MsgMetadata, error) { return &m.meta, nil }
func (m fakeMsg) Data() []byte                              { return []byte(strconv.FormatUint(m.meta.Sequence.Stream, 10)) }

type fakeConsumer struct {
	jetstream.Consumer
	info jetstream.ConsumerInfo
}

func (c fakeConsumer) CachedInfo() *jetstream.ConsumerInfo { return &c.info }

// fakeStream has all messages.
type fakeStream struct{ jetstream.Stream }

func (fakeStream) GetMsg(_ context.Context, number uint64, _ ...jetstream.GetMsgOpt) (*jetstream.RawStreamMsg, error) {
	return &jetstream.RawStreamMsg{Sequence: number, Time: time.Unix(int64(number), 0)}, nil
}

// The first message of a consumer that was made again waits for the last one of the consumer
// before, whose call may begin later.
func TestJetPlaceGivesWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sub := &jetSubscription{js: &JetStream{stream: fakeStream{}}, items: make(chan item, 10)}
		p := newJetPlace(sub, "a")
		p.last, p.at = 9, time.Unix(9, 0)
		consumer := fakeConsumer{info: jetstream.ConsumerInfo{Name: "c_2", Config: jetstream.ConsumerConfig{OptStartSeq: 11}}}
		call := func(name string, consumed, number uint64) {
			meta := jetstream.MsgMetadata{Consumer: name, Timestamp: time.Unix(int64(number), 0)}
			meta.Sequence.Consumer, meta.Sequence.Stream = consumed, number
			p.receive(fakeMsg{meta: meta}, consumer, p.life, "c_1")
		}
		go call("c_2", 1, 11)
		time.Sleep(time.Second)
		call("c_1", 10, 10)
		synctest.Wait()
		time.Sleep(time.Second)
		for _, want := range []string{"10", "11"} {
			select {
			case got := <-sub.items:
				if string(got.Data) != want || got.gap != nil {
					t.Errorf("got %+v, want %s", got, want)
				}
			default:
				t.Errorf("%s is missing", want)
			}
		}
		p.stop()
	})
}
