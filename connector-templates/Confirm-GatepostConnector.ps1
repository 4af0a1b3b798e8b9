#Requires -Version 5.1

<#
.SYNOPSIS
    Has Exchange Online prove the outbound connector with a test mail, marks it as validated, and reads in the message trace whether mail
    came back once.

.DESCRIPTION
    Validate-OutboundConnector connects to Gatepost and sends a real mail from O365ConnectorValidation@ the tenant's default domain to each
    address of -Recipient. If both steps succeed, and the trace does not show the test mail as failed, the connector is marked as validated,
    which Validate-OutboundConnector does not do by itself. A connector that is validated is left alone, unless -Again is given; where that
    fails, the mark is taken off.

    The message trace is read for it: has the mail been delivered once, and has the clean-up rule taken the loop header off once? That rule's
    entry in the trace is the proof that the mail was with Gatepost; the header itself has then gone. Later, with -MessageId, the same is
    read for mail of users in the pilot.

    The trace lags behind by minutes: -WaitMinutes says how long to look again. Limits of Exchange Online: 10 days for a query, 90 days
    back, 5000 rows, 100 queries in 5 minutes.

.PARAMETER Recipient
    Who gets the test mail: a mailbox of this tenant that somebody reads.

.PARAMETER MessageId
    Message-ID, with its angle brackets, of mail to look for in the trace. Alone, it changes and sends nothing.

.PARAMETER Hours
    How far back to look for -MessageId.

.PARAMETER WaitMinutes
    How long to look again while the mail is not in the trace or not settled. 0: once.

.PARAMETER PollSeconds
    How long to wait between two looks into the trace.

.PARAMETER Again
    Validates a connector that is validated already.

.PARAMETER OutboundConnectorName
    Name of the outbound connector.

.PARAMETER RoutingRuleName
    Name of the mail flow rule that sends mail to Gatepost.

.PARAMETER CleanUpRuleName
    Name of the mail flow rule that takes the loop header off mail that has come back.

.PARAMETER TenantId
    The tenant's directory ID (a GUID). The script refuses to read or change any other tenant.

.PARAMETER UserPrincipalName
    Account to sign in with, interactively.

.PARAMETER DelegatedOrganization
    The customer's tenant, for a partner with delegated administration.

.PARAMETER AppId
    Application to sign in as, with -Organization and a certificate.

.PARAMETER Organization
    The tenant's name that ends in .onmicrosoft.com, for an application or a managed identity.

.PARAMETER CertificateThumbprint
    Certificate of the application in the certificate store (Windows).

.PARAMETER CertificateFilePath
    Certificate of the application as a .pfx file.

.PARAMETER CertificatePassword
    Password of that file.

.PARAMETER ManagedIdentity
    Signs in as the managed identity of the machine, with -Organization.

.PARAMETER ManagedIdentityAccountId
    Client ID of a managed identity that the machine does not have by itself.

.PARAMETER ExchangeEnvironmentName
    The cloud that the tenant is in; O365Default where nothing is given.

.EXAMPLE
    .\Confirm-GatepostConnector.ps1 -Recipient me@contoso.com -WhatIf

    Says what would be sent; no mail goes out.

.EXAMPLE
    .\Confirm-GatepostConnector.ps1 -Recipient me@contoso.com -UserPrincipalName admin@contoso.com

    Sends the test mail, marks the connector, and waits for the mail in the trace.

.EXAMPLE
    .\Confirm-GatepostConnector.ps1 -MessageId '<CAJ1@mail.contoso.com>' -WaitMinutes 0

    Reads what became of one mail of the last two days.

.EXAMPLE
    .\Confirm-GatepostConnector.ps1 -Recipient me@contoso.com -AppId 00000000-0000-0000-0000-000000000000 -Organization contoso.onmicrosoft.com -CertificateThumbprint $thumbprint

    As an application, without a person.

.EXAMPLE
    foreach ($customer in 'contoso', 'fabrikam') { & ".\$customer\Confirm-GatepostConnector.ps1" -Recipient "postmaster@$customer.com" -AppId $app -Organization "$customer.onmicrosoft.com" -CertificateThumbprint $thumbprint }

    One tenant after another, each with the folder that was rendered for it. A session is opened and closed for each; a folder of another tenant is refused.

.OUTPUTS
    One object for each thing looked at: Type, Name, Action, Changes, Message. No value of a secret header stands in it.

.NOTES
    Exchange Administrator, or Organization Management. An application needs Exchange.ManageAsApp and the role Exchange Administrator.
    Reading the trace needs the role Message Tracking.
#>
[CmdletBinding(SupportsShouldProcess = $true, ConfirmImpact = 'Medium', PositionalBinding = $false)]
[OutputType([pscustomobject])]
param(
    [ValidatePattern('^[^@\s]+@[^@\s]+$')]
    [string[]]$Recipient,

    [ValidateNotNullOrEmpty()]
    [string[]]$MessageId,

    [ValidateRange(1, 240)]
    [int]$Hours = 48,

    [ValidateRange(0, 120)]
    [int]$WaitMinutes = 10,

    [ValidateRange(1, 600)]
    [int]$PollSeconds = 30,

    [switch]$Again,

    [ValidateLength(1, 64)]
    [string]$OutboundConnectorName = 'To Gatepost',

    [ValidateLength(1, 64)]
    [string]$RoutingRuleName = 'Route to Gatepost',

    [ValidateLength(1, 64)]
    [string]$CleanUpRuleName = 'Back from Gatepost',

    [ValidateNotNullOrEmpty()]
    [string]$TenantId = '@TenantId@',

    [string]$UserPrincipalName,

    [string]$DelegatedOrganization,

    [string]$AppId,

    [string]$Organization,

    [string]$CertificateThumbprint,

    [string]$CertificateFilePath,

    [securestring]$CertificatePassword,

    [switch]$ManagedIdentity,

    [string]$ManagedIdentityAccountId,

    [ValidateSet('O365Default', 'O365GermanyCloud', 'O365China', 'O365USGovGCCHigh', 'O365USGovDoD')]
    [string]$ExchangeEnvironmentName = '@ExchangeEnvironmentName@'
)

Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'

#region Common
# The same in every script of this folder, so that each works alone; a test holds it so.
$script:Doing = 'starting'
$script:Denied = $false
$script:OwnConnection = ''
$script:DisconnectAll = $false
$script:Hidden = @()

# The value of a property; nothing where the object has none of this name.
function Get-GatepostProperty {
    param($Object, [string]$Name)
    if ($null -eq $Object) { return $null }
    $property = $Object.PSObject.Properties[$Name]
    if ($null -eq $property) { return $null }
    $property.Value
}

# Ends the script with a reason that is no fault of Exchange Online.
function Deny-GatepostRun {
    param([string]$Reason)
    $script:Denied = $true
    throw $Reason
}

# A text without the values of secret headers.
function Protect-GatepostText {
    param([string]$Text)
    foreach ($value in $script:Hidden) { if ($value) { $Text = $Text.Replace($value, '(secret)') } }
    $Text
}

# What Exchange Online answered stays in the list of errors, but for answers that repeat a secret.
function Clear-GatepostError {
    foreach ($entry in @($Error)) {
        $shown = [string]$entry
        if ((Protect-GatepostText -Text $shown) -cne $shown) { $Error.Remove($entry) }
    }
}

# The error that a script ends with: what it was doing, why that failed, and how to go on.
function Get-GatepostFailure {
    param($Record)
    $text = Protect-GatepostText -Text ([string]$Record.Exception.Message)
    $id = 'GatepostRefused'
    if (-not $script:Denied) {
        $id = 'GatepostFailed'
        $text = 'Failed while ' + $script:Doing + ': ' + $text.TrimEnd(' ', '.') + '. Run the script again: it goes on from what is there.'
    }
    Clear-GatepostError
    $exception = New-Object -TypeName System.InvalidOperationException -ArgumentList $text
    New-Object -TypeName System.Management.Automation.ErrorRecord -ArgumentList $exception, $id, ([System.Management.Automation.ErrorCategory]::InvalidOperation), $null
}

# Fails where a value was neither filled in by render nor given.
function Assert-GatepostValue {
    param([string]$Name, [string[]]$Value)
    $bad = @($Value | Where-Object { -not $_ -or $_ -match '^@\w+@$' })
    if (@($Value).Count -eq 0 -or $bad.Count -gt 0) {
        Deny-GatepostRun -Reason "$Name has no value: give -$Name, or let 'gatepost connector render' fill this script in."
    }
}

# A parameter that may be left out: nothing where the template was not filled in.
function Get-GatepostOptional {
    param([string]$Value)
    if ($Value -match '^@\w+@$') { return [string]::Empty }
    $Value
}

# One line of the result: for one thing in the tenant, what was done with it.
function Write-GatepostResult {
    param([string]$Type, [string]$Name, [string]$Action, [string[]]$Changes = @(), [string]$Message = '')
    [pscustomobject]@{ Type = $Type; Name = $Name; Action = $Action; Changes = @($Changes); Message = $Message }
}

# What became of a change that ShouldProcess held back.
function Get-GatepostHeld {
    param([string]$Would)
    if ($WhatIfPreference) { return $Would }
    'Skipped'
}

# What Connect-ExchangeOnline is called with.
function Get-GatepostSignIn {
    $signIn = @{ ShowBanner = $false }
    $environment = Get-GatepostOptional -Value $ExchangeEnvironmentName
    if ($environment) { $signIn['ExchangeEnvironmentName'] = $environment }
    if ($AppId -or $ManagedIdentity) {
        if (-not $Organization) { Deny-GatepostRun -Reason 'Signing in as an application needs -Organization: the name of the tenant that ends in .onmicrosoft.com.' }
        if ($UserPrincipalName -or $DelegatedOrganization) { Deny-GatepostRun -Reason 'Give either a user (-UserPrincipalName, -DelegatedOrganization) or an application (-AppId or -ManagedIdentity), not both.' }
        $signIn['Organization'] = $Organization
    }
    if ($AppId) {
        if ($ManagedIdentity) { Deny-GatepostRun -Reason 'Give either -AppId or -ManagedIdentity, not both.' }
        if ([bool]$CertificateThumbprint -eq [bool]$CertificateFilePath) { Deny-GatepostRun -Reason '-AppId goes with one of -CertificateThumbprint (Windows) and -CertificateFilePath.' }
        $signIn['AppId'] = $AppId
        if ($CertificateThumbprint) { $signIn['CertificateThumbprint'] = $CertificateThumbprint }
        if ($CertificateFilePath) {
            $signIn['CertificateFilePath'] = $PSCmdlet.GetUnresolvedProviderPathFromPSPath($CertificateFilePath)
            if ($null -ne $CertificatePassword) { $signIn['CertificatePassword'] = $CertificatePassword }
        }
    } elseif ($ManagedIdentity) {
        $signIn['ManagedIdentity'] = $true
        if ($ManagedIdentityAccountId) { $signIn['ManagedIdentityAccountId'] = $ManagedIdentityAccountId }
    } else {
        if ($CertificateThumbprint -or $CertificateFilePath) { Deny-GatepostRun -Reason 'A certificate goes with -AppId and -Organization.' }
        if ($Organization) { Deny-GatepostRun -Reason '-Organization goes with -AppId or -ManagedIdentity; a partner signs in with -DelegatedOrganization.' }
        if ($UserPrincipalName) { $signIn['UserPrincipalName'] = $UserPrincipalName }
        if ($DelegatedOrganization) { $signIn['DelegatedOrganization'] = $DelegatedOrganization }
    }
    $signIn
}

# The sessions to Exchange Online in this window whose cmdlets have no prefix and whose token is good.
function Get-GatepostSession {
    @(Get-ConnectionInformation -ErrorAction Stop | Where-Object {
        (Get-GatepostProperty -Object $_ -Name 'State') -eq 'Connected' -and (Get-GatepostProperty -Object $_ -Name 'TokenStatus') -eq 'Active' -and
        -not (Get-GatepostProperty -Object $_ -Name 'IsEopSession') -and -not (Get-GatepostProperty -Object $_ -Name 'ModulePrefix')
    })
}

# A session of the right tenant: one that is open, else one of our own. Nothing of another tenant is read.
function Connect-GatepostTenant {
    Assert-GatepostValue -Name 'TenantId' -Value $TenantId
    $signIn = Get-GatepostSignIn
    $script:Doing = 'loading the module ExchangeOnlineManagement'
    $minimum = [version]'3.2.0'
    $loaded = @(Get-Module -Name 'ExchangeOnlineManagement')
    if ($loaded.Count -eq 0) {
        $there = @(Get-Module -Name 'ExchangeOnlineManagement' -ListAvailable | Where-Object { $_.Version -ge $minimum })
        if ($there.Count -eq 0) { Deny-GatepostRun -Reason "The module ExchangeOnlineManagement $minimum or later is not on this machine. Install it: Install-Module -Name ExchangeOnlineManagement -Scope CurrentUser" }
        Import-Module -Name 'ExchangeOnlineManagement' -MinimumVersion $minimum -ErrorAction Stop
    } elseif ($loaded[0].Version -lt $minimum) {
        Deny-GatepostRun -Reason "ExchangeOnlineManagement $($loaded[0].Version) is loaded, and $minimum or later is needed. Update-Module -Name ExchangeOnlineManagement, then a new window."
    }
    $script:Doing = 'looking for an open session'
    $open = @(Get-GatepostSession)
    foreach ($one in $open) {
        $other = [string](Get-GatepostProperty -Object $one -Name 'TenantID')
        if ($other -ne $TenantId) { Deny-GatepostRun -Reason "This window is connected to tenant $other, and the script is for tenant $TenantId. Nothing was read or changed. Disconnect-ExchangeOnline, or use another window." }
    }
    if ($open.Count -gt 0) {
        Write-Verbose "Using the open session of tenant $TenantId as $(Get-GatepostProperty -Object $open[0] -Name 'UserPrincipalName')$(Get-GatepostProperty -Object $open[0] -Name 'AppId')."
        return
    }
    $script:Doing = "signing in to Exchange Online for tenant $TenantId"
    $before = @(Get-ConnectionInformation -ErrorAction Stop | ForEach-Object { [string](Get-GatepostProperty -Object $_ -Name 'ConnectionId') })
    $script:DisconnectAll = ($before.Count -eq 0)
    Connect-ExchangeOnline @signIn -ErrorAction Stop
    $own = @(Get-GatepostSession | Where-Object { $before -notcontains [string](Get-GatepostProperty -Object $_ -Name 'ConnectionId') })
    if ($own.Count -eq 0) { Deny-GatepostRun -Reason 'Connect-ExchangeOnline came back without a session.' }
    $script:OwnConnection = [string](Get-GatepostProperty -Object $own[0] -Name 'ConnectionId')
    $reached = [string](Get-GatepostProperty -Object $own[0] -Name 'TenantID')
    if ($reached -ne $TenantId) { Deny-GatepostRun -Reason "The sign-in led to tenant $reached, and the script is for tenant $TenantId. Nothing was read or changed." }
    Write-Verbose "Signed in to tenant $TenantId, $(Get-GatepostProperty -Object $own[0] -Name 'Organization')$(Get-GatepostProperty -Object $own[0] -Name 'DelegatedOrganization')."
}

# Closes the session that this script opened, and no other.
function Disconnect-GatepostTenant {
    try {
        if ($script:OwnConnection) { Disconnect-ExchangeOnline -ConnectionId $script:OwnConnection -Confirm:$false -ErrorAction Stop }
        elseif ($script:DisconnectAll) { Disconnect-ExchangeOnline -Confirm:$false -ErrorAction Stop }
    } catch {
        Write-Warning "The session could not be closed: $(Protect-GatepostText -Text ([string]$_.Exception.Message))"
        Clear-GatepostError
    }
    $script:OwnConnection = ''
    $script:DisconnectAll = $false
}
#endregion Common

#region Ownership
# With this the comment of every object of ours begins.
$script:Mark = 'Managed by Gatepost (schema 1)'

# Whether the hybrid wizard made this connector: such a one is never touched.
function Test-GatepostHybrid {
    param($Object)
    $name = [string](Get-GatepostProperty -Object $Object -Name 'Name')
    [string](Get-GatepostProperty -Object $Object -Name 'ConnectorSource') -eq 'HybridWizard' -or $name -like 'Inbound from *' -or $name -like 'Outbound to *'
}

# Whether the object carries our mark.
function Test-GatepostMark {
    param($Object)
    $comment = [string](Get-GatepostProperty -Object $Object -Name 'Comment') + [string](Get-GatepostProperty -Object $Object -Name 'Comments')
    $comment.StartsWith($script:Mark, [System.StringComparison]::Ordinal)
}
#endregion Ownership

#region Find
# The object of this name, nothing where there is none. Refuses one that is not ours.
function Find-GatepostObject {
    param([object[]]$List, [string]$Name, [string]$Type, [bool]$Adopt = $false)
    $found = @($List | Where-Object { $null -ne $_ -and [string]$_.Name -eq $Name })
    if ($found.Count -eq 0) { return $null }
    if ($Type -match 'connector' -and (Test-GatepostHybrid -Object $found[0])) { Deny-GatepostRun -Reason "The $Type '$Name' belongs to the hybrid set-up and is never touched: choose another name." }
    if (-not $Adopt -and -not (Test-GatepostMark -Object $found[0])) {
        Deny-GatepostRun -Reason "The $Type '$Name' is not Gatepost's: its comment does not begin with '$($script:Mark)'. Nothing was changed. Where it is somebody else's, choose another name; where it is Gatepost's and somebody has changed the comment, Install-GatepostConnector.ps1 -Force takes it back."
    }
    $found[0]
}
#endregion Find

# Rows of the message trace, page by page: each page begins where the last one ended.
function Get-GatepostTrace {
    param([hashtable]$Query)
    $script:Doing = 'reading the message trace'
    $ask = @{ StartDate = $Query['StartDate']; EndDate = $Query['EndDate']; ResultSize = 5000 }
    if ($Query['MessageId']) { $ask['MessageId'] = $Query['MessageId'] }
    if ($Query['RecipientAddress']) { $ask['RecipientAddress'] = $Query['RecipientAddress'] }
    $seen = @{}
    for ($page = 0; $page -lt 20; $page++) {
        $rows = @(Get-MessageTraceV2 @ask -WarningAction SilentlyContinue -ErrorAction Stop)
        foreach ($row in $rows) {
            $key = "$($row.MessageTraceId)/$($row.RecipientAddress)"
            if ($seen.ContainsKey($key)) { continue }
            $seen[$key] = $true
            if ([string]$row.SenderAddress -like $Query['Sender'] -and @($Query['Before']) -notcontains [string]$row.MessageTraceId) { $row }
        }
        if ($rows.Count -lt 5000) { return }
        $ask['StartingRecipientAddress'] = [string]$rows[-1].RecipientAddress
        $ask['EndDate'] = [datetime]::SpecifyKind([datetime]$rows[-1].Received, [System.DateTimeKind]::Utc)
    }
    Write-Warning 'The message trace has more than 100000 rows: the rest was not read.'
}

# What the trace says about one message to one recipient: its passes through Exchange, and how often each rule acted.
function Get-GatepostVerdict {
    param([object[]]$Rows, [hashtable]$Query)
    $routed = 0
    $cleaned = 0
    $delivered = 0
    $states = @()
    foreach ($row in $Rows) {
        $states += [string]$row.Status
        $script:Doing = "reading the details of message $($row.MessageId)"
        $details = @(Get-MessageTraceDetailV2 -MessageTraceId $row.MessageTraceId -RecipientAddress $row.RecipientAddress -StartDate $Query['StartDate'] -EndDate $Query['EndDate'] -ErrorAction Stop)
        foreach ($detail in $details) {
            $text = [string](Get-GatepostProperty -Object $detail -Name 'Detail') + ' ' + [string](Get-GatepostProperty -Object $detail -Name 'Data')
            $kind = [string](Get-GatepostProperty -Object $detail -Name 'Event')
            if ($kind -eq 'Deliver') { $delivered++ }
            if ($kind -notmatch 'rule') { continue }
            if ($text.Contains($RoutingRuleName)) { $routed++ }
            if ($text.Contains($CleanUpRuleName)) { $cleaned++ }
        }
    }
    $action = 'Pending'
    $message = "not settled yet ($(@($states | Sort-Object -Unique) -join ', '))"
    if ($routed -gt 1 -or $cleaned -gt 1 -or $delivered -gt 1) {
        $action = 'Looped'
        $message = "routed $routed times, back $cleaned times, delivered $delivered times: mail goes round. Set-GatepostRollout.ps1 -Stage Stop, then Repair-GatepostConnector.ps1"
    } elseif (@($states | Where-Object { $_ -eq 'Failed' -or $_ -eq 'Quarantined' -or $_ -eq 'FilteredAsSpam' }).Count -gt 0) {
        $action = 'Failed'
        $message = "in the trace as $(@($states | Sort-Object -Unique) -join ', '): Get-MessageTraceDetailV2 says why, 'gatepost trace' says what Gatepost did"
    } elseif (@($states | Where-Object { $_ -ne 'Delivered' }).Count -eq 0) {
        $action = 'Delivered'
        $message = "in the trace as delivered; $($Query['Unseen'])"
        if ($cleaned -eq 1) { $message = "once through Gatepost and back: '$CleanUpRuleName' took the loop header off once" }
    }
    Write-GatepostResult -Type 'message' -Name ([string]$Rows[0].MessageId) -Action $action -Message "to $($Rows[0].RecipientAddress): $message"
}

# What it means that the clean-up rule has not acted on mail of users: by how far the rollout is now.
function Get-GatepostUnseen {
    $script:Doing = 'reading the transport rules'
    $rules = @(Get-TransportRule -ErrorAction Stop)
    $routing = @($rules | Where-Object { [string]$_.Name -eq $RoutingRuleName })
    $cleanUp = @($rules | Where-Object { [string]$_.Name -eq $CleanUpRuleName })
    if ($routing.Count -eq 0) { return "not by way of Gatepost as far as Exchange can tell: there is no rule '$RoutingRuleName', so Exchange sends nothing there. Mail of an application shows in 'gatepost trace'" }
    if ([string](Get-GatepostProperty -Object $routing[0] -Name 'State') -ne 'Enabled') { return "not by way of Gatepost, as it should be: the rule '$RoutingRuleName' is disabled (stage Stop), and Exchange sends nothing there. Mail sent before the stop has the clean-up rule in its trace if it was there" }
    if ([string](Get-GatepostProperty -Object $routing[0] -Name 'Mode') -ne 'Enforce') { return "not by way of Gatepost, as it should be: the rule '$RoutingRuleName' only writes into the trace what it would do (stage Audit)" }
    if ($cleanUp.Count -eq 0 -or [string](Get-GatepostProperty -Object $cleanUp[0] -Name 'State') -ne 'Enabled') { return "the rule '$CleanUpRuleName' is not there or disabled, so nothing in the trace can show whether the mail was with Gatepost: Repair-GatepostConnector.ps1, or 'gatepost trace'" }
    $group = @(Get-GatepostProperty -Object $routing[0] -Name 'FromMemberOf' | Where-Object { $_ })
    if ($group.Count -gt 0) { return "the clean-up rule has not acted, so the mail was not with Gatepost: its sender is not in $($group -join ', ') (stage Pilot), or an exception holds" }
    "the clean-up rule has not acted, so nothing shows that the mail was with Gatepost, though the stage is Everyone: 'gatepost trace' says whether it was"
}

# 'True' or 'False' for one step of Validate-OutboundConnector, '' where its result has no sign that we know: the form is not documented.
function Get-GatepostOutcome {
    param($Result)
    foreach ($key in 'IsTaskSuccessful', 'IsSuccessful', 'Succeeded', 'Success', 'Result', 'Status') {
        $value = Get-GatepostProperty -Object $Result -Name $key
        if ($null -eq $value) { continue }
        return [string]([string]$value -match '^(True|Success|Successful|Succeeded|Passed|Pass)$')
    }
    [string]::Empty
}

# Reads the trace again until every message is settled or the time is over.
function Read-GatepostPassage {
    param([hashtable]$Query)
    $until = [datetime]::UtcNow.AddMinutes($WaitMinutes)
    while ($true) {
        $Query['EndDate'] = [datetime]::UtcNow.AddMinutes(1)
        # A query covers ten days at most, and this one ends later each time.
        $first = $Query['EndDate'].AddDays(-10)
        if ($Query['StartDate'] -lt $first) { $Query['StartDate'] = $first }
        $rows = @(Get-GatepostTrace -Query $Query)
        $verdicts = @($rows | Group-Object -Property 'MessageId', 'RecipientAddress' | ForEach-Object { Get-GatepostVerdict -Rows @($_.Group) -Query $Query })
        if ($verdicts.Count -gt 0 -and @($verdicts | Where-Object { $_.Action -eq 'Pending' }).Count -eq 0) { break }
        if ([datetime]::UtcNow.AddSeconds($PollSeconds) -gt $until) { break }
        Write-Verbose "Nothing settled in the message trace yet; looking again in $PollSeconds seconds."
        Start-Sleep -Seconds $PollSeconds
    }
    if ($verdicts.Count -eq 0) { Write-GatepostResult -Type 'message' -Name '(none)' -Action 'Pending' -Message "not in the message trace yet: look again later, or in 'gatepost trace'" }
    $verdicts
}

try {
    if (-not $Recipient -and -not $MessageId) { Deny-GatepostRun -Reason 'Give -Recipient (who gets the test mail) or -MessageId (which mail to look for).' }
    if ($PollSeconds -gt 1 -and $PollSeconds -lt 6) { Write-Verbose 'A query every few seconds comes near the limit of 100 in 5 minutes.' }
    Connect-GatepostTenant
    if ($null -eq (Get-Command -Name 'Get-MessageTraceV2' -ErrorAction SilentlyContinue)) { Deny-GatepostRun -Reason 'Get-MessageTraceV2 is not in this session: it needs ExchangeOnlineManagement 3.7.0 or later and the role Message Tracking.' }
    $bad = @()
    if ($Recipient) {
        $script:Doing = 'reading the outbound connectors'
        $connector = Find-GatepostObject -List @(Get-OutboundConnector -IncludeTestModeConnectors $true -ErrorAction Stop) -Name $OutboundConnectorName -Type 'outbound connector'
        if ($null -eq $connector) { Deny-GatepostRun -Reason "There is no outbound connector '$OutboundConnectorName' in tenant $TenantId`: Install-GatepostConnector.ps1 makes it, unless mail comes from applications alone. Then nothing is to be validated: look for a mail with -MessageId." }
        if ([string](Get-GatepostProperty -Object $connector -Name 'Enabled') -ne 'True') { Deny-GatepostRun -Reason "The outbound connector '$OutboundConnectorName' is disabled, and Exchange validates none that is: Repair-GatepostConnector.ps1 enables it." }
        $type = 'outbound connector'
        $last = [string](Get-GatepostProperty -Object $connector -Name 'LastValidationTimestamp')
        if ([string](Get-GatepostProperty -Object $connector -Name 'IsValidated') -eq 'True' -and -not $Again) {
            Write-GatepostResult -Type $type -Name $OutboundConnectorName -Action 'Unchanged' -Message "validated at $last; -Again sends a test mail all the same"
        } else {
            $action = Get-GatepostHeld -Would 'WouldUpdate'
            $started = [datetime]::UtcNow
            $passage = @()
            $message = ''
            $changes = @()
            if ($PSCmdlet.ShouldProcess("$type '$OutboundConnectorName' of tenant $TenantId", "Send test mail to $($Recipient -join ', ') and mark as validated")) {
                $query = @{ StartDate = $started.AddMinutes(-5); RecipientAddress = $Recipient; Sender = 'O365ConnectorValidation@*'; MessageId = $null; EndDate = $started.AddMinutes(1); Before = @(); Unseen = 'the clean-up rule has not acted, so nothing shows that the test mail came back by way of Gatepost: ''gatepost trace O365ConnectorValidation@DOMAIN'' (the default domain of the tenant) says whether it was there' }
                # Clocks differ, so the query begins earlier; test mails of earlier runs are none of this one.
                $query['Before'] = @(Get-GatepostTrace -Query $query | ForEach-Object { [string]$_.MessageTraceId })
                $script:Doing = "validating the $type '$OutboundConnectorName'"
                $tests = @(Validate-OutboundConnector -Identity $OutboundConnectorName -Recipients $Recipient -Confirm:$false -ErrorAction Stop)
                foreach ($test in $tests) {
                    $what = [string](Get-GatepostProperty -Object $test -Name 'TaskName')
                    $good = Get-GatepostOutcome -Result $test
                    $detail = "$(Get-GatepostProperty -Object $test -Name 'Detail')$(Get-GatepostProperty -Object $test -Name 'Details')"
                    if ($good -ne 'True') { $bad += "$what`: $detail".Trim() }
                    if ($good -eq '') { $bad += "this script cannot read the result ($(@($test.PSObject.Properties | ForEach-Object { $_.Name }) -join ', '))" }
                    Write-Verbose "$what`: $good $detail"
                }
                if ($tests.Count -eq 0) { $bad += 'Validate-OutboundConnector gave no result' }
                if ($bad.Count -eq 0) {
                    $passage = @(Read-GatepostPassage -Query $query)
                    foreach ($one in @($passage | Where-Object { 'Failed', 'Looped' -contains $_.Action })) { $bad += "the test mail $($one.Name) $($one.Message)" }
                }
                $was = [string](Get-GatepostProperty -Object $connector -Name 'IsValidated')
                if ($bad.Count -eq 0) {
                    $script:Doing = "marking the $type '$OutboundConnectorName' as validated"
                    Set-OutboundConnector -Identity $OutboundConnectorName -IsValidated $true -LastValidationTimestamp ([datetime]::UtcNow) -Confirm:$false -ErrorAction Stop
                    $action = 'Updated'
                    $changes = @("IsValidated: '$was' -> 'True'")
                } else {
                    $action = 'Failed'
                    if ($was -eq 'True') {
                        # What was proven once does not hold any more.
                        $script:Doing = "marking the $type '$OutboundConnectorName' as not validated"
                        Set-OutboundConnector -Identity $OutboundConnectorName -IsValidated $false -Confirm:$false -ErrorAction Stop
                        $changes = @("IsValidated: 'True' -> 'False'")
                    }
                    $message = "$($bad -join '; '). See 'gatepost trace O365ConnectorValidation@DOMAIN' (the default domain of the tenant) and Gatepost's log; port 25 must be open from the Internet"
                }
            }
            Write-GatepostResult -Type $type -Name $OutboundConnectorName -Action $action -Changes $changes -Message $message
            $passage
        }
    }
    if ($MessageId) {
        $now = [datetime]::UtcNow
        Read-GatepostPassage -Query @{ StartDate = $now.AddHours(-$Hours); MessageId = $MessageId; Sender = '*'; RecipientAddress = $null; EndDate = $now; Unseen = (Get-GatepostUnseen) }
    }
    if ($bad.Count -gt 0) { Deny-GatepostRun -Reason "The outbound connector '$OutboundConnectorName' is not validated: $($bad -join '; ')." }
} catch {
    $PSCmdlet.ThrowTerminatingError((Get-GatepostFailure -Record $_))
} finally {
    Disconnect-GatepostTenant
}
