// Times that users give: the zone that they name, and the zone of this host, which errors show.
import KedgeCore

/// The host's zone files.
struct TimeZoneFiles {
    private static let directory = "/usr/share/zoneinfo/"
    private static let limit = 1 << 20
    let readFile: FileReader

    /// The moment that `text` means. Throws `usage`.
    func parse(_ text: String, in zone: TimeZoneRules?) throws(KedgeError) -> Timestamp {
        try TimeInput.parse(text, zone: zone, host: host)
    }

    /// The zone of that name. Throws `usage` where the host knows none, `damaged` where its file is.
    func zone(_ name: String) throws(KedgeError) -> TimeZoneRules {
        guard TimeZoneRules.isValidName(name) else {
            throw unknown(name, "That is not the name of a zone.")
        }
        let file: SmallFile
        do throws(KedgeError) {
            file = try readFile(TimeZoneFiles.directory + name, "time zone file", TimeZoneFiles.limit)
        } catch {
            if name == "UTC" { return .utc }
            throw unknown(name, error.detail)
        }
        return try TimeZoneRules(name: name, file: file.bytes)
    }

    /// This host's own zone: the one that /etc/timezone names, else what /etc/localtime holds; without either the C
    /// library shows UTC, and so do we.
    var host: TimeZoneRules {
        do throws(KedgeError) {
            let text = try readFile("/etc/timezone", "time zone", 256).bytes
            let name = String(decoding: text, as: UTF8.self).split(whereSeparator: \.isWhitespace).first ?? ""
            return try zone(String(name))
        } catch {
            do throws(KedgeError) {
                let path = "/etc/localtime"
                return try TimeZoneRules(name: path, file: readFile(path, "time zone file", TimeZoneFiles.limit).bytes)
            } catch {
                return .utc
            }
        }
    }

    private func unknown(_ name: String, _ detail: String?) -> KedgeError {
        KedgeError(
            .usage, "cannot use time zone \"\(name)\"", detail: detail,
            hint: "Give the name of a file below \(TimeZoneFiles.directory), such as Europe/Berlin; the package tzdata "
                + "has them.")
    }
}
