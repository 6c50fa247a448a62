// Texts that people and hosts give: configuration, times, time zones, labels, names of objects.
import KedgeCatalog
import KedgeCommand
import KedgeCore
import KedgeRepository

extension FuzzTarget {
    static let textTargets: [FuzzTarget] = [
        FuzzTarget(
            "configuration-file",
            seeds: [
                Array(
                    "[repository main]\ntype = local # h\npath = \"/a \\\"b\\\" # c\"\r\n\n[cluster x]\npgdata = /p\n"
                        .utf8)
            ]
        ) { (bytes) throws(KedgeError) in
            let file = try ConfigurationFile(path: "kedge.conf", bytes: bytes)
            for section in file.sections {
                require(Set(section.entries.map(\.key)).count == section.entries.count, "a key occurs once")
            }
        },
        FuzzTarget(
            "time", maximumLength: 64,
            seeds: ["2026-11-20 14:30:00+02", "2026-11-20T12:30:00.123456Z", "2026-10-25 02:30"].map { Array($0.utf8) }
        ) { (bytes) throws(KedgeError) in
            let text = String(decoding: bytes, as: UTF8.self)
            if let moment = Timestamp(record: text) {
                require(moment.description == text, "a moment of a record is written as it was read")
            }
            let written = try WrittenTime(text)
            let rule = PosixTimeZone("CET-1CEST,M3.5.0,M10.5.0/3")
            let zone = TimeZoneRules(name: "Europe/Berlin", rule: rule)
            let moment = try written.moment(in: zone, host: .utc)
            require(
                try TimeInput.parse(moment.description, zone: nil, host: .utc) == moment
                    || moment.description.utf8.count > 27, "a time is read as it is printed")
        },
        FuzzTarget("time-zone-file", maximumLength: 2048, seeds: [zoneSeed]) { (bytes) throws(KedgeError) in
            let zone = try TimeZoneRules(name: "Somewhere/Else", file: bytes)
            for time in [-62_135_596_800, 0, 1_795_000_000, 253_402_300_799] as [Int64] {
                _ = zone.offset(at: time)
                for moment in zone.moments(showing: time) {
                    require(moment + zone.offset(at: moment) == time, "a clock shows what it is said to show")
                }
                _ = zone.offsetsAroundGap(at: time)
            }
        },
        FuzzTarget(
            "time-zone-rule", maximumLength: 128,
            seeds: ["CET-1CEST,M3.5.0,M10.5.0/3", "<+0330>-3:30", "EST5EDT,J60,300/-26:30"].map { Array($0.utf8) }
        ) { (bytes) throws(KedgeError) in
            guard let rule = PosixTimeZone(String(decoding: bytes, as: UTF8.self)) else { return }
            for time in [-62_135_596_800, 0, 1_795_000_000, 253_402_300_799] as [Int64] {
                require(abs(rule.offset(at: time)) <= 25 * 3600, "no zone is more than a day away")
                _ = rule.changes(in: time - 100_000...time + 100_000)
            }
        },
        FuzzTarget("label", maximumLength: 64, seeds: [Array("20261121T020000Z-delta-7k3q".utf8)]) {
            (bytes) throws(KedgeError) in
            guard let label = Label(String(decoding: bytes, as: UTF8.self)) else { return }
            require(Array(label.text.utf8) == bytes, "a label is written as it was read")
            require(ClusterLayout.commitRecord(label: label.text) != nil, "every label is the name of an object")
            require(ClusterLayout.manifest(label: label.text) != nil, "every label is the name of an object")
        },
        FuzzTarget(
            "object-name", maximumLength: 300,
            seeds: ["main/catalog/backup/20261121T020000Z-full-7k3q"].map { Array($0.utf8) }
        ) { (bytes) throws(KedgeError) in
            guard let name = ObjectName(String(decoding: bytes, as: UTF8.self)) else { return }
            let parts = name.text.split(separator: "/", omittingEmptySubsequences: false)
            require(!parts.contains { $0.isEmpty || $0 == "." || $0 == ".." }, "no name leaves the repository")
            require(!name.text.utf8.contains(0), "no name ends early")
        },
    ]

    /// Version 2, one change, with a rule for what comes after it.
    private static let zoneSeed: [UInt8] = {
        func header(_ counts: [UInt8]) -> [UInt8] {
            Array("TZif2".utf8) + [UInt8](repeating: 0, count: 15) + counts.flatMap { [0, 0, 0, $0] }
        }
        let empty = header([0, 0, 0, 0, 1, 1]) + [UInt8](repeating: 0, count: 7)
        let times: [UInt8] = [0, 0, 0, 0, 0x5E, 0x0B, 0xE1, 0]
        let types: [UInt8] = [0, 0, 0x0E, 0x10, 0, 0] + [0, 0, 0x1C, 0x20, 1, 4]
        return empty + header([0, 0, 0, 1, 2, 8]) + times + [1] + types + Array("CET\0CEST\0".utf8.prefix(8))
            + Array("\nCET-1CEST,M3.5.0,M10.5.0/3\n".utf8)
    }()
}
