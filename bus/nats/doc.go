// Package nats has buses over NATS, as package bus has them over Redis. [Core] is the publish
// and subscribe of NATS. [JetStream] keeps a history, from which a subscriber that was cut
// off reads on.
//
// It is a module of its own, so that only its users link NATS' client. A program that
// imports that client, too, gives this package another name:
//
//	import (
//		natsbus "github.com/limpet-go/limpet/bus/nats"
//		"github.com/nats-io/nats.go"
//	)
//
//	conn, err := nats.Connect("nats://10.0.0.5:4222",
//		nats.MaxReconnects(-1),              // or a bus is closed after an outage of two minutes
//		nats.RetryOnFailedConnect(true),     // or the program doesn't start without NATS
//		nats.PingInterval(5*time.Second),    // or a dead connection is noticed after minutes
//		nats.ReconnectBufSize(1<<20),        // what Publish may leave for when NATS is back
//	)
//	// ...
//	b := &natsbus.Core{Conn: conn}
//
// # Subjects
//
// The subject of a topic is the bus' Prefix followed by the topic, and a message is sent as
// it is, so any program that speaks to NATS can take part. Bytes that a subject can't have
// are written as % and two hexadecimal digits: all but letters, digits and -_.$:/@+=, and
// dots at the beginning, at the end and behind another dot. The topic "" is a single %. A
// topic that takes more than 200 bytes so is %~ and its SHA-256 in hexadecimal digits.
package nats
