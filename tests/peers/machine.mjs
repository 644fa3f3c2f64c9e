// A machine of one Ethernet address that speaks ARP only (RFC 826): it answers for 10.9.0.2, and then asks for
// 10.9.0.1.

const MAC = Buffer.from("02ee00000002", "hex");
const OWN = Buffer.from([10, 9, 0, 2]);
const OTHER = Buffer.from([10, 9, 0, 1]);
const HEAD = Buffer.from("08060001080006040001".slice(0, 20), "hex");

function arp(operation, destination, target, targetIp) {
  const head = Buffer.from(HEAD);
  head.writeUInt16BE(operation, 8);
  return Buffer.concat([destination, MAC, head, MAC, OWN, target, targetIp]);
}

const question = arp(1, Buffer.alloc(6, 0xff), Buffer.alloc(6), OTHER);

// The frames to send back for a frame. Says on standard output what happened.
export function take(data) {
  const frame = Buffer.from(data);
  if (frame.length < 42 || frame.readUInt16BE(12) !== 0x0806 || !frame.subarray(38, 42).equals(OWN)) {
    return [];
  }
  const sender = frame.subarray(22, 28);
  if (frame.readUInt16BE(20) === 2) {
    console.log("was answered");
    return [];
  }
  console.log("was asked");
  return [arp(2, sender, sender, frame.subarray(28, 32)), question];
}
