// Go's WebSocket packages: `LIBRARY connect URI`, or `LIBRARY listen`; LIBRARY is xnet, gorilla or nhooyr.
package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"

	"github.com/gorilla/websocket"
	xnet "golang.org/x/net/websocket"
	nhooyr "nhooyr.io/websocket"
)

var (
	mac   = []byte{0x02, 0xee, 0, 0, 0, 2}
	own   = []byte{10, 9, 0, 2}
	other = []byte{10, 9, 0, 1}
)

// arp makes a frame (RFC 826).
func arp(operation uint16, destination, target, targetIP []byte) []byte {
	frame := append(append([]byte{}, destination...), mac...)
	frame = append(frame, 8, 6, 0, 1, 8, 0, 6, 4)
	frame = binary.BigEndian.AppendUint16(frame, operation)
	for _, part := range [][]byte{mac, own, target, targetIP} {
		frame = append(frame, part...)
	}
	return frame
}

var question = arp(1, []byte{255, 255, 255, 255, 255, 255}, make([]byte, 6), other)

// take returns the frames to send back for a frame.
func take(frame []byte) [][]byte {
	if len(frame) < 42 || binary.BigEndian.Uint16(frame[12:]) != 0x0806 || string(frame[38:42]) != string(own) {
		return nil
	}
	if binary.BigEndian.Uint16(frame[20:]) == 2 {
		fmt.Println("was answered")
		return nil
	}
	fmt.Println("was asked")
	return [][]byte{arp(2, frame[22:28], frame[22:28], frame[28:32]), question}
}

// run is the machine, until the connection ends.
func run(send func([]byte) error, receive func() ([]byte, error)) {
	for {
		frame, err := receive()
		if err != nil {
			log.Print(err)
			return
		}
		for _, answer := range take(frame) {
			if err := send(answer); err != nil {
				log.Print(err)
				return
			}
		}
	}
}

func runXnet(conn *xnet.Conn) {
	run(
		func(frame []byte) error { return xnet.Message.Send(conn, frame) },
		func() (frame []byte, err error) { err = xnet.Message.Receive(conn, &frame); return },
	)
}

func runGorilla(conn *websocket.Conn) {
	run(
		func(frame []byte) error { return conn.WriteMessage(websocket.BinaryMessage, frame) },
		func() ([]byte, error) { _, frame, err := conn.ReadMessage(); return frame, err },
	)
}

func runNhooyr(conn *nhooyr.Conn) {
	background := context.Background()
	run(
		func(frame []byte) error { return conn.Write(background, nhooyr.MessageBinary, frame) },
		func() ([]byte, error) { _, frame, err := conn.Read(background); return frame, err },
	)
}

func connect(library, uri string) error {
	switch library {
	case "xnet":
		conn, err := xnet.Dial(uri, "", "http://192.0.2.1")
		if err == nil {
			runXnet(conn)
		}
		return err
	case "gorilla":
		conn, _, err := websocket.DefaultDialer.Dial(uri, nil)
		if err == nil {
			runGorilla(conn)
		}
		return err
	}
	conn, _, err := nhooyr.Dial(context.Background(), uri, nil)
	if err == nil {
		runNhooyr(conn)
	}
	return err
}

func handler(library string) http.Handler {
	switch library {
	case "xnet":
		return xnet.Handler(runXnet)
	case "gorilla":
		return http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
			upgrader := websocket.Upgrader{}
			if conn, err := upgrader.Upgrade(writer, request, nil); err == nil {
				runGorilla(conn)
			}
		})
	}
	return http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		if conn, err := nhooyr.Accept(writer, request, nil); err == nil {
			runNhooyr(conn)
		}
	})
}

func main() {
	library, role := os.Args[1], os.Args[2]
	if role == "connect" {
		if err := connect(library, os.Args[3]); err != nil {
			log.Fatal(err)
		}
		return
	}
	listener, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on %d.\n", listener.Addr().(*net.TCPAddr).Port)
	log.Fatal(http.Serve(listener, handler(library)))
}
