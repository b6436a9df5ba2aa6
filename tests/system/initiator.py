# SPDX-License-Identifier: MIT
"""A stranger at a target: another initiator that logs in, registers a key, reserves or preempts, and writes, as another cluster
or host would (RFC 7143 for the PDUs, SPC-4 for the commands). Only what the tests need: no CHAP, no digests, one command at a time."""
import socket
import struct

REGISTER, RESERVE, RELEASE, PREEMPT = 0, 1, 2, 4
WRITE_EXCLUSIVE = 1


class Initiator:
    def __init__(self, port, target, name="iqn.2026-11.example:stranger", lun=1):
        self.lun, self.cmd_sn, self.exp_stat_sn = lun, 1, 0
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        keys = {"InitiatorName": name, "TargetName": target, "SessionType": "Normal", "AuthMethod": "None"}
        self.login(0, 1, keys)
        self.login(1, 3, {"HeaderDigest": "None", "DataDigest": "None", "InitialR2T": "No", "ImmediateData": "Yes"})

    def close(self):
        self.socket.close()

    def exchange(self, header, data=b""):
        """Sends a PDU; the header of the answer, whose data are passed over."""
        header[5:8] = len(data).to_bytes(3, "big")
        struct.pack_into(">I", header, 16, 1)
        struct.pack_into(">II", header, 24, self.cmd_sn, self.exp_stat_sn)
        self.socket.sendall(bytes(header) + data + bytes(-len(data) % 4))
        answer = self.take(48)
        length = int.from_bytes(answer[5:8], "big")
        self.take(length + -length % 4)
        self.exp_stat_sn = struct.unpack_from(">I", answer, 24)[0] + 1
        return answer

    def take(self, count):
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            assert part, "the target ended the connection"
            data += part
        return data

    def login(self, stage, following, keys):
        text = b"".join(f"{key}={value}\0".encode() for key, value in keys.items())
        header = bytearray(48)
        header[0], header[1] = 0x43, 0x80 | stage << 2 | following
        header[8:14] = bytes.fromhex("80bad0bad001")
        answer = self.exchange(header, text)
        assert answer[0] == 0x23 and answer[36] == 0, f"login refused: {answer[36:38].hex()}"

    def reserve_out(self, action, key, new_key=0, kind=WRITE_EXCLUSIVE):
        """PERSISTENT RESERVE OUT; its status, after what the unit has to report first (CHECK CONDITION)."""
        for _ in range(3):
            status = self.try_reserve_out(action, key, new_key, kind)
            if status != 2:
                break
        return status

    def try_reserve_out(self, action, key, new_key, kind):
        parameters = struct.pack(">QQ8x", key, new_key)
        header = bytearray(48)
        header[0], header[1] = 0x01, 0xa0 | 0x01  # final, write, simple
        struct.pack_into(">H", header, 8, self.lun)
        struct.pack_into(">I", header, 20, len(parameters))
        header[32:42] = struct.pack(">BBB2xIB", 0x5f, action, kind if action else 0, len(parameters), 0)
        answer = self.exchange(header, parameters)
        self.cmd_sn += 1
        assert answer[0] == 0x21 and answer[2] == 0, f"the target did not carry it out: {answer.hex()}"
        return answer[3]

    def reserve(self, key):
        assert self.reserve_out(REGISTER, 0, key) == 0
        assert self.reserve_out(RESERVE, key) == 0

    def release(self, key):
        assert self.reserve_out(RELEASE, key) == 0
        assert self.reserve_out(REGISTER, key, 0) == 0

    def preempt(self, key, victim, kind=WRITE_EXCLUSIVE):
        """Registers, and takes the reservation and the key away from whoever has them."""
        assert self.reserve_out(REGISTER, 0, key) == 0
        assert self.reserve_out(PREEMPT, key, victim, kind) == 0

    def write(self, block, data):
        """WRITE (16); its status, after what the unit has to report first."""
        for _ in range(3):
            header = bytearray(48)
            header[0], header[1] = 0x01, 0xa0 | 0x01
            struct.pack_into(">H", header, 8, self.lun)
            struct.pack_into(">I", header, 20, len(data))
            header[32:48] = struct.pack(">BBQIBB", 0x8a, 0, block, len(data) // 512, 0, 0)
            answer = self.exchange(header, data)
            self.cmd_sn += 1
            assert answer[0] == 0x21 and answer[2] == 0, f"the target did not carry it out: {answer.hex()}"
            if answer[3] != 2:
                break
        return answer[3]
