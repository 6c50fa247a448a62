// Which file answers for a zone's name and for the host's own zone.
import KedgeCore
import Testing

@testable import KedgeCommand

@Suite struct TimeZoneFilesTests {
    /// A zone file of version 2 without any change: only the rule counts.
    private static func zoneFile(_ rule: String) -> String {
        // universal, standard, leap and time counts are 0, one type, four characters
        let block =
            "TZif2" + String(repeating: "\0", count: 15 + 16) + "\0\0\0\u{1}\0\0\0\u{4}"
            + "\0\0\0\0\0\0" + "LMT\0"
        return block + block + "\n\(rule)\n"
    }

    private let berlin = zoneFile("CET-1CEST,M3.5.0,M10.5.0/3")

    private func zones(_ files: [String: String]) -> TimeZoneFiles { TimeZoneFiles(readFile: reader(files)) }

    @Test("a named zone is read from its file")
    func named() throws {
        let zones = zones(["/usr/share/zoneinfo/Europe/Berlin": berlin])
        let zone = try zones.zone("Europe/Berlin")
        #expect(zone.name == "Europe/Berlin")
        #expect(try zones.parse("2026-07-01 12:00:00", in: zone).description == "2026-07-01T10:00:00Z")
        #expect(try zones.zone("UTC").offset(at: 0) == 0)
    }

    @Test("a zone that the host does not know is refused, and so is a name that is a way out")
    func unknown() {
        let hint = """
            hint: Give the name of a file below /usr/share/zoneinfo/, such as Europe/Berlin; the package tzdata has \
            them.
            code: usage
            """
        #expect(
            failure { () throws(KedgeError) in try zones([:]).zone("Europe/Bonn").name } == """
                kedge: error: cannot use time zone "Europe/Bonn"
                detail: No such file or directory.
                \(hint)
                """)
        #expect(
            failure { () throws(KedgeError) in try zones(["/etc/passwd": berlin]).zone("../../../etc/passwd").name }
                == """
                kedge: error: cannot use time zone "../../../etc/passwd"
                detail: That is not the name of a zone.
                \(hint)
                """)
    }

    @Test("the host's zone is the one that /etc/timezone names, else /etc/localtime, else UTC")
    func host() {
        let file = "/usr/share/zoneinfo/Europe/Berlin"
        #expect(zones(["/etc/timezone": "Europe/Berlin\n", file: berlin]).host.name == "Europe/Berlin")
        #expect(zones(["/etc/timezone": "\n", "/etc/localtime": berlin]).host.name == "/etc/localtime")
        #expect(zones(["/etc/timezone": "Gone/Away\n", "/etc/localtime": berlin]).host.offset(at: 0) == 3600)
        #expect(zones([:]).host.name == "UTC")
        #expect(
            failure { () throws(KedgeError) in
                try zones(["/etc/localtime": berlin]).parse("2026-11-20 14:30:00", in: nil).description
            } == """
                kedge: error: cannot tell which moment "2026-11-20 14:30:00" is: it has no time zone
                detail: In UTC it is 2026-11-20T14:30:00Z; in this host's time zone /etc/localtime it is \
                2026-11-20T13:30:00Z.
                hint: Write "2026-11-20 14:30:00+00" for UTC, or another offset, or give --time-zone NAME.
                code: usage
                """)
    }
}
