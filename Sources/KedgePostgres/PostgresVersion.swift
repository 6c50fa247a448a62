// What differs between the supported major versions and can be told from a file alone.
package import KedgeCore

/// A supported major version of PostgreSQL.
package enum PostgresVersion: Int, Comparable, CaseIterable, Sendable {
    case v13 = 13
    case v14 = 14
    case v15 = 15
    case v16 = 16
    case v17 = 17
    case v18 = 18

    /// The number in the first line of the file PG_VERSION.
    package var major: Int { rawValue }

    /// The version whose released servers have this catalogue version (src/include/catalog/catversion.h). Nil for any
    /// other, such as a beta's.
    package init?(catalogVersion: UInt32) {
        guard let version = PostgresVersion.allCases.first(where: { $0.catalogVersion == catalogVersion }) else {
            return nil
        }
        self = version
    }

    /// CATALOG_VERSION_NO: in `pg_control` and in the names of directories below tablespaces.
    package var catalogVersion: UInt32 {
        switch self {
        case .v13: 202_007_201
        case .v14: 202_107_181
        case .v15: 202_209_061
        case .v16: 202_307_071
        case .v17: 202_406_281
        case .v18: 202_506_291
        }
    }

    /// PG_CONTROL_VERSION: the layout of `pg_control`.
    package var controlVersion: UInt32 {
        switch self {
        case .v13, .v14, .v15, .v16: 1300
        case .v17: 1700
        case .v18: 1800
        }
    }

    /// XLOG_PAGE_MAGIC: the first two bytes of every WAL page (src/include/access/xlog_internal.h).
    package var walPageMagic: UInt16 {
        switch self {
        case .v13: 0xD106
        case .v14: 0xD10D
        case .v15: 0xD110
        case .v16: 0xD113
        case .v17: 0xD116
        case .v18: 0xD118
        }
    }

    /// The version whose WAL pages begin with `walPageMagic`. Nil where there is none.
    package init?(walPageMagic: UInt16) {
        guard let version = PostgresVersion.allCases.first(where: { $0.walPageMagic == walPageMagic }) else {
            return nil
        }
        self = version
    }

    package static func < (left: PostgresVersion, right: PostgresVersion) -> Bool { left.rawValue < right.rawValue }
}

extension Timestamp {
    /// Seconds since 1970 up to the end of the year 9999: what a server's clock can have said. Anything else in a file
    /// is damage, and could not be written into a record of ours.
    package static let believableSeconds: ClosedRange<Int64> = 0...253_402_300_799

    /// From PostgreSQL's TimestampTz. Nil for a moment that no server's clock can have said.
    package init?(believable postgresMicroseconds: Int64) {
        let moment = Timestamp(postgresMicroseconds: postgresMicroseconds)
        guard moment.microseconds >= 0, Timestamp.believableSeconds.contains(moment.microseconds / 1_000_000) else {
            return nil
        }
        self = moment
    }
}
