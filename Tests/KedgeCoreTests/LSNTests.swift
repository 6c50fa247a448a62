// Positions and file names, compared with what PostgreSQL itself prints.
import KedgeCore
import Testing

@Suite struct LSNTests {
    @Test("an LSN is printed and parsed as pg_lsn does", arguments: ["0/0", "0/2000028", "A/FF", "FFFFFFFF/FFFFFFFF"])
    func roundTrip(_ text: String) throws {
        #expect(try #require(LSN(text)).description == text)
    }

    @Test(
        "what is not an LSN is refused", arguments: ["", "/", "1/", "/1", "1", "123456789/0", "0/g", "+1/1", "0/0/0"])
    func refused(_ text: String) {
        #expect(LSN(text) == nil)
    }

    @Test("timelines and segments are hexadecimal: timeline 16 is 00000010 (lesson 3)")
    func hexadecimalTimeline() throws {
        let segment = try #require(WALSegment(fileName: "000000100000000A000000FF", segmentSize: 16 << 20))
        #expect(segment.timeline == TimelineID(16))
        #expect(segment.startLSN(segmentSize: 16 << 20) == LSN("A/FF000000"))
        #expect(segment.next.fileName(segmentSize: 16 << 20) == "000000100000000B00000000")
    }
}
