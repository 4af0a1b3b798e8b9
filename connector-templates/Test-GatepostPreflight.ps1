#Requires -Version 5.1

<#
.SYNOPSIS
    Checks whether a tenant is ready for Gatepost's connectors. Reads only.

.DESCRIPTION
    Looks at what the sign-in may do, at accepted domains and the certificate's name, at objects that have our names or get in our way, at
    hybrid connectors, rules that route, stop or change the loop header before ours, Direct Send, rich text (TNEF), the IP allow list and the
    pilot group. Action is Passed, Advice (worth a look) or Failed (Install would fail, or mail would). The script ends with an error if
    something failed.

.PARAMETER InboundConnectorName
    Name of the inbound connector.

.PARAMETER OutboundConnectorName
    Name of the outbound connector.

.PARAMETER RoutingRuleName
    Name of the mail flow rule that sends mail to Gatepost.

.PARAMETER CleanUpRuleName
    Name of the mail flow rule that takes the loop header off mail that has come back.

.PARAMETER SmartHosts
    Host names that Exchange connects to: 'hostname' of gatepost.toml. None where mail comes from applications alone: then nothing is asked
    of outbound connectors and rules.

.PARAMETER TlsSenderCertificateName
    The name in the certificate that Gatepost shows to Exchange; it must lie in an accepted domain of the tenant.

.PARAMETER AcceptedDomains
    The tenant's domains as gatepost.toml has them.

.PARAMETER LoopHeaderName
    Header that marks mail which was with Gatepost: loop_header of gatepost.toml.

.PARAMETER PilotGroup
    Address of the group whose members take part in the pilot.

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
    .\Test-GatepostPreflight.ps1 -UserPrincipalName admin@contoso.com | Where-Object { $_.Action -ne 'Passed' }

    Shows what deserves a look.

.EXAMPLE
    .\Test-GatepostPreflight.ps1 -AppId 00000000-0000-0000-0000-000000000000 -Organization contoso.onmicrosoft.com -CertificateThumbprint $thumbprint

    As an application, without a person.

.EXAMPLE
    foreach ($customer in 'contoso', 'fabrikam') { & ".\$customer\Test-GatepostPreflight.ps1" -AppId $app -Organization "$customer.onmicrosoft.com" -CertificateThumbprint $thumbprint }

    One tenant after another, each with the folder that was rendered for it. A session is opened and closed for each; a folder of another tenant is refused.

.OUTPUTS
    One object for each thing looked at: Type, Name, Action, Changes, Message. No value of a secret header stands in it.

.NOTES
    View-Only Organization Management or Global Reader is enough to read; run it with the account that installs, so that its roles are
    checked as well.
#>
[CmdletBinding(PositionalBinding = $false)]
[OutputType([pscustomobject])]
param(
    [ValidateLength(1, 64)]
    [string]$InboundConnectorName = 'From Gatepost',

    [ValidateLength(1, 64)]
    [string]$OutboundConnectorName = 'To Gatepost',

    [ValidateLength(1, 64)]
    [string]$RoutingRuleName = 'Route to Gatepost',

    [ValidateLength(1, 64)]
    [string]$CleanUpRuleName = 'Back from Gatepost',

    [ValidatePattern('^(\*\.)?([A-Za-z0-9_-]+\.)+[A-Za-z0-9-]+$|^@\w+@$')]
    [string[]]$SmartHosts = @('@SmartHosts@'),

    [ValidatePattern('^(\*\.)?([A-Za-z0-9_-]+\.)+[A-Za-z0-9-]+$|^@\w+@$')]
    [string]$TlsSenderCertificateName = '@TlsSenderCertificateName@',

    [ValidateNotNullOrEmpty()]
    [string[]]$AcceptedDomains = @('@AcceptedDomains@'),

    [ValidatePattern('(?-i)^[!-9;-~]{1,76}\z|^@\w+@$')]
    [string]$LoopHeaderName = '@LoopHeaderName@',

    [AllowEmptyString()]
    [string]$PilotGroup = '@PilotGroup@',

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

#region Moment
# A date of a rule in UTC, as the service keeps it; nothing where there is none.
function ConvertTo-GatepostMoment {
    param($Value)
    $moment = [datetime]::MinValue
    if ($Value -is [datetime]) { $moment = $Value }
    elseif (-not [datetime]::TryParse([string]$Value, [System.Globalization.CultureInfo]::InvariantCulture, [System.Globalization.DateTimeStyles]'AssumeUniversal, AdjustToUniversal', [ref]$moment)) { return $null }
    if ($moment.Kind -eq [System.DateTimeKind]::Local) { return $moment.ToUniversalTime() }
    [datetime]::SpecifyKind($moment, [System.DateTimeKind]::Utc)
}
#endregion Moment

#region Live
# Whether a rule does what it says: enabled, enforced, and not ended. One that begins later does so without another hand.
function Test-GatepostLive {
    param($Rule)
    $end = ConvertTo-GatepostMoment -Value (Get-GatepostProperty -Object $Rule -Name 'ExpiryDate')
    [string](Get-GatepostProperty -Object $Rule -Name 'State') -eq 'Enabled' -and [string](Get-GatepostProperty -Object $Rule -Name 'Mode') -eq 'Enforce' -and ($null -eq $end -or $end -gt [datetime]::UtcNow)
}
#endregion Live

#region Literal
# A name as it stands in a line to paste: PowerShell takes the curly quotes for quotes as well.
function ConvertTo-GatepostLiteral {
    param([string]$Text)
    "'" + ($Text -replace "['\u2018-\u201B]", '$0$0') + "'"
}
#endregion Literal

#region Held
# Whether a rule holds it: not nothing, empty, false or zero; a spam confidence level of zero is one.
function Test-GatepostHeld {
    param([string]$Name, $Value)
    if ($Value -is [bool]) { return $Value }
    $members = @($Value | Where-Object { $null -ne $_ -and '' -ne [string]$_ })
    if ($members.Count -eq 0) { return $false }
    $Name -match '^(SetSCL|(ExceptIf)?SCLOver)$' -or [string]$members[0] -notmatch '^(0|False)$'
}
#endregion Held

#region Host
# A host as 'gatepost connector diff' compares it: without case, the brackets of an address, and a dot at the end.
function ConvertTo-GatepostHost {
    param([string]$Text)
    ($Text -replace '^\[(.+)\]$', '$1').TrimEnd('.').ToLowerInvariant()
}

# The smart hosts of a connector that are among these, or with -Other those that are not.
function Get-GatepostSmartHost {
    param($Connector, [string[]]$Among, [switch]$Other)
    $ours = @($Among | ForEach-Object { ConvertTo-GatepostHost -Text $_ })
    @(Get-GatepostProperty -Object $Connector -Name 'SmartHosts' | Where-Object { $_ -and ($ours -contains (ConvertTo-GatepostHost -Text ([string]$_))) -ne [bool]$Other })
}
#endregion Host

#region Way
# Whether a rule leads to this connector, by any of the names that Exchange gives it.
function Test-GatepostWay {
    param($Rule, [string]$Name, $Connector)
    $names = @($Name)
    foreach ($key in 'Guid', 'DistinguishedName', 'Identity') { $names += [string](Get-GatepostProperty -Object $Connector -Name $key) }
    $way = [string](Get-GatepostProperty -Object $Rule -Name 'RouteMessageOutboundConnector')
    '' -ne $way -and $names -contains $way
}
#endregion Way

#region TakeOver
# What of a rule's properties is something that it does with the mail.
$script:Action = '^(AddManager|AddToRecipients|ApplyClassification|ApplyHtmlDisclaimerText|ApplyOME|ApplyRights|BlindCopyTo|CopyTo|DeleteMessage|Generate|Moderate|PrependSubject|Quarantine|Redirect|Reject|Remove|RouteMessageOutboundConnector|SetHeaderName|SetSCL|SmtpReject|StopRuleProcessing)'

# Why an object of our name that is not ours is not taken over: mail would take another way under its owner. Nothing where it may be.
function Get-GatepostInboundUse {
    param($Connector)
    if ($null -eq $Connector -or (Test-GatepostMark -Object $Connector) -or [string](Get-GatepostProperty -Object $Connector -Name 'Enabled') -ne 'True') { return '' }
    $known = [string](Get-GatepostProperty -Object $Connector -Name 'TlsSenderCertificateName')
    if ($known -eq $TlsSenderCertificateName) { return '' }
    $by = 'by no certificate'
    if ($known) { $by = "by the certificate name $known" }
    "The inbound connector '$InboundConnectorName' is not Gatepost's, and enabled for another server: it knows that $by, and would know it no more. Choose another name (-InboundConnectorName), or, where nothing comes by it any more, disable it first: Set-InboundConnector -Identity $(ConvertTo-GatepostLiteral -Text $InboundConnectorName) -Enabled `$false"
}

# -SecretKnown: values of our secret header; a rule with one of them is ours, whatever its comment says.
function Get-GatepostOutboundUse {
    param($Connector, [object[]]$Rules, [string[]]$SecretKnown = @())
    if ($null -eq $Connector -or (Test-GatepostMark -Object $Connector)) { return '' }
    # One that leads to Gatepost already takes no mail elsewhere.
    if (@(Get-GatepostSmartHost -Connector $Connector -Among $SmartHosts).Count -gt 0 -and @(Get-GatepostSmartHost -Connector $Connector -Among $SmartHosts -Other).Count -eq 0) { return '' }
    $users = @($Rules | Where-Object {
        $own = $SecretKnown -ccontains [string](Get-GatepostProperty -Object $_ -Name 'SetHeaderValue') -or (@($RoutingRuleName, $CleanUpRuleName) -contains [string]$_.Name -and (Test-GatepostMark -Object $_))
        -not $own -and (Test-GatepostWay -Rule $_ -Name $OutboundConnectorName -Connector $Connector) -and (Test-GatepostLive -Rule $_)
    })
    $what = "The outbound connector '$OutboundConnectorName' is not Gatepost's, and carries mail:"
    if ($users.Count -gt 0) {
        $names = @($users | ForEach-Object { ConvertTo-GatepostLiteral -Text $_.Name })
        return "$what rules that are not ours lead to it: $($names -join ', '). That mail would go to Gatepost, without the secret header. Lead them elsewhere or disable them first ($(@($names | ForEach-Object { "Disable-TransportRule -Identity $_" }) -join '; ')), or choose another name (-OutboundConnectorName)."
    }
    # Recipient domains say nothing where it is for rules alone.
    $scoped = [string](Get-GatepostProperty -Object $Connector -Name 'IsTransportRuleScoped') -eq 'True'
    $takes = @('RecipientDomains', 'AllAcceptedDomains', 'RouteAllMessagesViaOnPremises' | Where-Object { (Test-GatepostHeld -Name $_ -Value (Get-GatepostProperty -Object $Connector -Name $_)) -and -not ($scoped -and $_ -eq 'RecipientDomains') })
    if ([string](Get-GatepostProperty -Object $Connector -Name 'Enabled') -ne 'True' -or ($scoped -and $takes.Count -eq 0)) { return '' }
    $how = "by $($takes -join ' and ')"
    if ($takes.Count -eq 0) { $how = 'by itself, as it is not for rules alone (IsTransportRuleScoped)' }
    "$what $how. That mail would take another way. Choose another name (-OutboundConnectorName), or, where nothing needs that way any more, disable it first: Set-OutboundConnector -Identity $(ConvertTo-GatepostLiteral -Text $OutboundConnectorName) -Enabled `$false"
}

# -LoopKnown: loop values; a rule that looks for one of them is ours, whatever its comment says.
function Get-GatepostCleanUpUse {
    param($Rule, [string[]]$LoopKnown = @())
    if ($null -eq $Rule -or (Test-GatepostMark -Object $Rule) -or -not (Test-GatepostLive -Rule $Rule)) { return '' }
    if (@(Get-GatepostProperty -Object $Rule -Name 'HeaderContainsWords' | Where-Object { $LoopKnown -ccontains [string]$_ }).Count -gt 0) { return '' }
    $does = @($Rule.PSObject.Properties | Where-Object { $_.Name -match $script:Action -and (Test-GatepostHeld -Name $_.Name -Value $_.Value) -and -not ($_.Name -eq 'RemoveHeader' -and [string]$_.Value -eq $LoopHeaderName) } | ForEach-Object { $_.Name } | Sort-Object)
    if ($does.Count -eq 0) { return '' }
    "The rule '$CleanUpRuleName' is not Gatepost's, and does more with mail than take $LoopHeaderName off ($($does -join ', ')), which it would do no more. Choose another name (-CleanUpRuleName), or, where nothing needs it any more, disable it first: Disable-TransportRule -Identity $(ConvertTo-GatepostLiteral -Text $CleanUpRuleName)"
}

# Whether a rule that takes the loop header off leaves it on mail that has come back: it is not in force, or for mail from outside alone.
function Test-GatepostElse {
    param($Rule)
    -not (Test-GatepostLive -Rule $Rule) -or [string](Get-GatepostProperty -Object $Rule -Name 'FromScope') -eq 'NotInOrganization'
}
#endregion TakeOver

#region Group
# Whether there is a group of this name in the tenant.
function Test-GatepostGroupThere {
    param([string]$Name)
    $script:Doing = "reading the group '$Name'"
    $found = @()
    try { $found = @(Get-Recipient -Identity $Name -ErrorAction Stop) } catch {
        if ([string]$_ -notmatch 'couldn''t be found|could not be found|wasn''t found|not found') { throw }
        Write-Verbose "The group '$Name' is not there."
    }
    $found.Count -eq 1 -and [string](Get-GatepostProperty -Object $found[0] -Name 'RecipientType') -match 'Group'
}
#endregion Group

$script:Failed = 0

function Write-GatepostCheck {
    param([string]$Type, [string]$Name, [bool]$Bad, [bool]$Fatal, [string]$Message)
    $action = 'Passed'
    if ($Bad) {
        $action = 'Advice'
        if ($Fatal) {
            $action = 'Failed'
            $script:Failed++
        }
    }
    Write-GatepostResult -Type $Type -Name $Name -Action $action -Message $Message
}

# Cmdlets come with a session only as far as the roles of the account go.
function Test-GatepostRole {
    $needed = [ordered]@{
        'New-InboundConnector' = 'Remote and Accepted Domains'; 'Set-InboundConnector' = 'Remote and Accepted Domains'; 'Get-MessageTraceV2' = 'Message Tracking'
    }
    if (-not $script:InboundAlone) {
        foreach ($cmdlet in 'New-OutboundConnector', 'Set-OutboundConnector', 'Validate-OutboundConnector') { $needed[$cmdlet] = 'Remote and Accepted Domains' }
        foreach ($cmdlet in 'New-TransportRule', 'Set-TransportRule') { $needed[$cmdlet] = 'Transport Rules' }
        # Install and the rollout look the pilot group up.
        $needed['Get-Recipient'] = 'View-Only Recipients'
    }
    $missing = @()
    foreach ($cmdlet in $needed.Keys) { if ($null -eq (Get-Command -Name $cmdlet -ErrorAction SilentlyContinue)) { $missing += "$cmdlet ($($needed[$cmdlet]))" } }
    $message = 'the session has every cmdlet that the scripts call'
    if ($missing.Count -gt 0) { $message = "not in this session, so the account lacks a role, or the module is too old: $($missing -join ', ')" }
    Write-GatepostCheck -Type 'session' -Name 'roles' -Bad ($missing.Count -gt 0) -Fatal $true -Message $message
}

function Test-GatepostOrganization {
    $script:Doing = 'reading the organization configuration'
    $configuration = Get-OrganizationConfig -ErrorAction Stop
    $closed = [string](Get-GatepostProperty -Object $configuration -Name 'IsDehydrated') -eq 'True'
    $message = 'the tenant takes connectors'
    if ($closed) { $message = 'run Enable-OrganizationCustomization once, and wait some minutes: until then the tenant takes no connectors' }
    Write-GatepostCheck -Type 'organization' -Name 'IsDehydrated' -Bad $closed -Fatal $true -Message $message
    $rejects = [string](Get-GatepostProperty -Object $configuration -Name 'RejectDirectSend') -eq 'True'
    $message = 'mail that matches no connector and claims to be from one of the domains is refused (550 5.7.68); Gatepost''s own mail as well while its certificate does not match'
    if (-not $rejects) { $message = 'anybody on the Internet can hand in mail from one of the domains past Gatepost: once every device goes through Gatepost, Set-OrganizationConfig -RejectDirectSend $true' }
    Write-GatepostCheck -Type 'organization' -Name 'RejectDirectSend' -Bad (-not $rejects) -Fatal $false -Message $message
}

function Test-GatepostDomain {
    $script:Doing = 'reading the accepted domains'
    $domains = @{}
    $defaults = @()
    foreach ($one in @(Get-AcceptedDomain -ErrorAction Stop)) {
        $domain = ([string]$one.DomainName).ToLowerInvariant()
        $domains[$domain] = [string](Get-GatepostProperty -Object $one -Name 'DomainType')
        if ([string](Get-GatepostProperty -Object $one -Name 'Default') -eq 'True') { $defaults += $domain }
    }
    foreach ($domain in $AcceptedDomains) {
        $plain = ($domain -replace '^\*\.', '').ToLowerInvariant()
        $message = 'an accepted domain of this tenant'
        $bad = -not $domains.ContainsKey($plain)
        if ($bad) { $message = 'in accepted_domains of gatepost.toml, and no accepted domain of this tenant: take it out there, or add and verify it in the admin centre' }
        elseif ($domains[$plain] -eq 'InternalRelay') {
            $bad = $true
            $message = 'an internal relay domain: mail to addresses that Exchange does not know is sent on by a connector; it must not lead back to Gatepost'
        }
        Write-GatepostCheck -Type 'accepted domain' -Name $domain -Bad $bad -Fatal $false -Message $message
    }
    foreach ($domain in @($domains.Keys | Sort-Object)) {
        $known = @($AcceptedDomains | Where-Object { $domain -eq $_ -or ($_.StartsWith('*.') -and ('.' + $domain).EndsWith($_.Substring(1), [System.StringComparison]::OrdinalIgnoreCase)) })
        if ($known.Count -gt 0) { continue }
        $message = 'an accepted domain of this tenant that accepted_domains of gatepost.toml lacks: Gatepost refuses mail of its senders (550 5.7.1), and takes mail to it for mail to the outside'
        if ($defaults -contains $domain) { $message += '; it is the default domain, which the test mail of Confirm-GatepostConnector.ps1 comes from' }
        Write-GatepostCheck -Type 'accepted domain' -Name $domain -Bad $true -Fatal $false -Message $message
    }
    $name = ($TlsSenderCertificateName -replace '^\*\.', '').ToLowerInvariant()
    $parents = @($domains.Keys | Where-Object { $name.EndsWith('.' + $_, [System.StringComparison]::Ordinal) })
    if ($domains.ContainsKey($name)) { Write-GatepostCheck -Type 'certificate name' -Name $TlsSenderCertificateName -Bad $false -Fatal $false -Message 'an accepted domain: Exchange can tell by it whose mail it is' }
    elseif ($parents.Count -gt 0) { Write-GatepostCheck -Type 'certificate name' -Name $TlsSenderCertificateName -Bad $true -Fatal $false -Message "only below the accepted domain '$($parents[0])': better add the name itself in the admin centre (Settings, Domains)" }
    else { Write-GatepostCheck -Type 'certificate name' -Name $TlsSenderCertificateName -Bad $true -Fatal $true -Message 'no accepted domain of this tenant, nor below one: Exchange refuses mail that only the certificate can attribute (550 5.7.64). Add and verify it in the admin centre; PowerShell cannot' }
}

# Objects that have our names, and those that get in the way of ours. -Use: why Install-GatepostConnector.ps1 -Force does not take this one over.
function Test-GatepostName {
    param([object[]]$List, [string]$Name, [string]$Type, [string]$Use)
    $found = @($List | Where-Object { $null -ne $_ -and [string]$_.Name -eq $Name })
    if ($found.Count -eq 0) { Write-GatepostCheck -Type $Type -Name $Name -Bad $false -Fatal $false -Message 'the name is free' }
    elseif ($Type -match 'connector' -and (Test-GatepostHybrid -Object $found[0])) { Write-GatepostCheck -Type $Type -Name $Name -Bad $true -Fatal $true -Message 'belongs to the hybrid set-up: choose another name' }
    elseif (Test-GatepostMark -Object $found[0]) { Write-GatepostCheck -Type $Type -Name $Name -Bad $false -Fatal $false -Message 'is there, and Gatepost''s' }
    elseif ($Use) { Write-GatepostCheck -Type $Type -Name $Name -Bad $true -Fatal $true -Message "is there, and nothing to take over. $Use" }
    else { Write-GatepostCheck -Type $Type -Name $Name -Bad $true -Fatal $true -Message 'is there, and not Gatepost''s: choose another name, or take it over with Install-GatepostConnector.ps1 -Force' }
}

function Test-GatepostConnector {
    $script:Doing = 'reading the inbound connectors'
    $inbound = @(Get-InboundConnector -ErrorAction Stop)
    $outbound = @()
    $use = Get-GatepostInboundUse -Connector @($inbound | Where-Object { [string]$_.Name -eq $InboundConnectorName } | Select-Object -First 1)[0]
    Test-GatepostName -List $inbound -Name $InboundConnectorName -Type 'inbound connector' -Use $use
    if (-not $script:InboundAlone) {
        $script:Doing = 'reading the outbound connectors'
        $outbound = @(Get-OutboundConnector -IncludeTestModeConnectors $true -ErrorAction Stop)
        $use = Get-GatepostOutboundUse -Connector @($outbound | Where-Object { [string]$_.Name -eq $OutboundConnectorName } | Select-Object -First 1)[0] -Rules $script:Rules
        Test-GatepostName -List $outbound -Name $OutboundConnectorName -Type 'outbound connector' -Use $use
    }
    $there = @($inbound | Where-Object { [string]$_.Name -eq $InboundConnectorName }).Count -gt 0
    foreach ($one in $inbound) {
        if ([string]$one.Name -eq $InboundConnectorName) { continue }
        $certificate = [string](Get-GatepostProperty -Object $one -Name 'TlsSenderCertificateName')
        $same = $certificate -eq $TlsSenderCertificateName
        $covers = $same -or ($certificate.StartsWith('*.') -and $TlsSenderCertificateName -like $certificate)
        # Which name below its wildcard Gatepost's certificate has is not known here: this may be it.
        $below = -not $covers -and $certificate -and $TlsSenderCertificateName.StartsWith('*.') -and $certificate -like $TlsSenderCertificateName
        $on = [string](Get-GatepostProperty -Object $one -Name 'Enabled') -eq 'True'
        if ($same -and -not $on -and -not $there -and -not (Test-GatepostHybrid -Object $one)) { Write-GatepostCheck -Type 'inbound connector' -Name $one.Name -Bad $true -Fatal $true -Message "disabled, and for the certificate that Gatepost shows: Install makes none beside it. Give it the name '$InboundConnectorName' and the mark, or remove it" }
        elseif ($below -and $on) { Write-GatepostCheck -Type 'inbound connector' -Name $one.Name -Bad $true -Fatal (-not (Test-GatepostHybrid -Object $one)) -Message "is known by $certificate, which $TlsSenderCertificateName covers: where that is the name of Gatepost's certificate, Exchange may take that connector, with its settings; where it is another server's, Exchange may take Gatepost's for its mail. Add the name of Gatepost's certificate itself as an accepted domain (admin centre, and accepted_domains), and render again" }
        elseif ($covers -and $on) {
            $message = "also fits the certificate that Gatepost shows ($certificate): Exchange may take that connector, with its settings"
            # A hybrid set-up cannot do without it, and Install makes ours beside it.
            $isHybrid = Test-GatepostHybrid -Object $one
            $isWide = $certificate.StartsWith('*.') -and $isHybrid
            $end = "disable it: Set-InboundConnector -Identity $(ConvertTo-GatepostLiteral -Text $one.Name) -Enabled `$false"
            if ($isWide) { $message += '. Give Gatepost a certificate whose name lies outside that wildcard, in another accepted domain' }
            elseif ($isHybrid) { $message += '. Give Gatepost a certificate with a name of its own' }
            elseif (-not $same) { $message += ". Give Gatepost a certificate with a name of its own, which that wildcard does not cover, or, where nothing comes by that connector any more, $end" }
            elseif ($there) { $message += ". Where another server uses it, give Gatepost a certificate with a name of its own; else $end" }
            else { $message += ". Where it was made for Gatepost, give it the name '$InboundConnectorName' and the mark, or remove it; where another server uses it, give Gatepost a certificate with a name of its own" }
            Write-GatepostCheck -Type 'inbound connector' -Name $one.Name -Bad $true -Fatal (-not $isWide) -Message $message
        }
        elseif (Test-GatepostHybrid -Object $one) { Write-GatepostCheck -Type 'inbound connector' -Name $one.Name -Bad $true -Fatal $false -Message 'belongs to the hybrid set-up: no script of ours touches it' }
        elseif ($on -and [string](Get-GatepostProperty -Object $one -Name 'ConnectorType') -eq 'Partner') {
            $restricts = @('RestrictDomainsToIPAddresses', 'RestrictDomainsToCertificate' | Where-Object { [string](Get-GatepostProperty -Object $one -Name $_) -eq 'True' })
            if ($restricts.Count -gt 0) { Write-GatepostCheck -Type 'inbound connector' -Name $one.Name -Bad $true -Fatal $false -Message "a Partner connector with $($restricts -join ' and '): mail of its domains that ours does not match is refused (550 5.7.51)" }
        }
    }
    $there = @($outbound | Where-Object { [string]$_.Name -eq $OutboundConnectorName }).Count -gt 0
    foreach ($one in $outbound) {
        if ([string]$one.Name -eq $OutboundConnectorName) { continue }
        if (Test-GatepostHybrid -Object $one) { Write-GatepostCheck -Type 'outbound connector' -Name $one.Name -Bad $true -Fatal $false -Message 'belongs to the hybrid set-up: no script of ours touches it' }
        $takes = @('RouteAllMessagesViaOnPremises', 'AllAcceptedDomains' | Where-Object { [string](Get-GatepostProperty -Object $one -Name $_) -eq 'True' })
        if ($takes.Count -gt 0 -and [string](Get-GatepostProperty -Object $one -Name 'Enabled') -eq 'True') { Write-GatepostCheck -Type 'outbound connector' -Name $one.Name -Bad $true -Fatal $false -Message "$($takes -join ' and '): mail that has come back from Gatepost takes this way as well" }
        if (@(Get-GatepostSmartHost -Connector $one -Among $SmartHosts).Count -eq 0) { continue }
        if ($there -or (Test-GatepostHybrid -Object $one)) { Write-GatepostCheck -Type 'outbound connector' -Name $one.Name -Bad $true -Fatal $false -Message 'leads to Gatepost as well: without the secret header, and perhaps round' }
        else { Write-GatepostCheck -Type 'outbound connector' -Name $one.Name -Bad $true -Fatal $true -Message "leads to Gatepost under another name, and Install makes none beside it: give it the name '$OutboundConnectorName' and the mark, or remove it" }
    }
}

function Test-GatepostRule {
    $rules = $script:Rules
    Test-GatepostName -List $rules -Name $RoutingRuleName -Type 'transport rule'
    $cleanUp = @($rules | Where-Object { [string]$_.Name -eq $CleanUpRuleName } | Select-Object -First 1)[0]
    # One that looks for our loop header is ours, whatever somebody has added to it: -Force takes it back, and disabling it would let the value out.
    $words = @()
    if ($null -ne $cleanUp -and [string](Get-GatepostProperty -Object $cleanUp -Name 'HeaderContainsMessageHeader') -eq $LoopHeaderName) { $words = @(Get-GatepostProperty -Object $cleanUp -Name 'HeaderContainsWords') }
    $use = Get-GatepostCleanUpUse -Rule $cleanUp -LoopKnown $words
    Test-GatepostName -List $rules -Name $CleanUpRuleName -Type 'transport rule' -Use $use
    $own = @($rules | Where-Object { [string]$_.Name -eq $RoutingRuleName })
    $cleans = @($rules | Where-Object { [string]$_.Name -eq $CleanUpRuleName }).Count -gt 0
    foreach ($rule in $rules) {
        if (@($RoutingRuleName, $CleanUpRuleName) -contains [string]$rule.Name) { continue }
        $removes = [string](Get-GatepostProperty -Object $rule -Name 'RemoveHeader') -eq $LoopHeaderName
        if ($removes -and -not $cleans) {
            $message = "takes $LoopHeaderName off under another name, and Install makes none beside it: give it the name '$CleanUpRuleName' and the mark, or remove it"
            if (Test-GatepostElse -Rule $rule) { $message = "takes $LoopHeaderName off under another name, though not from mail that has come back (disabled, ended, not enforced, or for mail from outside), and Install makes none beside it: where it is not to be ours, Install-GatepostConnector.ps1 -Force makes ours beside it" }
            Write-GatepostCheck -Type 'transport rule' -Name $rule.Name -Bad $true -Fatal $true -Message $message
            continue
        }
        $end = ConvertTo-GatepostMoment -Value (Get-GatepostProperty -Object $rule -Name 'ExpiryDate')
        if ([string](Get-GatepostProperty -Object $rule -Name 'State') -ne 'Enabled' -or ($null -ne $end -and $end -le [datetime]::UtcNow)) { continue }
        $before = $own.Count -gt 0 -and [int]$rule.Priority -lt [int]$own[0].Priority
        $stops = [string](Get-GatepostProperty -Object $rule -Name 'StopRuleProcessing') -eq 'True'
        $acts = [string](Get-GatepostProperty -Object $rule -Name 'Mode') -eq 'Enforce' -and [string](Get-GatepostProperty -Object $rule -Name 'FromScope') -ne 'NotInOrganization'
        $removes = $removes -and $acts -and $before
        $sets = $acts -and [string](Get-GatepostProperty -Object $rule -Name 'SetHeaderName') -eq $LoopHeaderName
        $does = @()
        if ([string](Get-GatepostProperty -Object $rule -Name 'RouteMessageOutboundConnector')) { $does += "routes mail to '$($rule.RouteMessageOutboundConnector)'" }
        if ($stops) { $does += 'stops the rules behind it' }
        if ($removes) { $does += "takes $LoopHeaderName off" }
        if ($sets) { $does += "sets $LoopHeaderName" }
        if ($does.Count -eq 0) { continue }
        $message = "$($does -join ' and '), priority $($rule.Priority): ours comes before it at priority 0, and mail that has come back meets it then"
        if ($before) {
            $told = 'such mail never reaches Gatepost'
            # What ours does not see any more cannot go round.
            if (-not $stops -and $removes) { $told = 'mail that has come back loses its mark before our exception, and goes to Gatepost again until a hop limit ends it. Let the rule stand behind ours, or remove it' }
            elseif (-not $stops -and $sets) { $told = 'with our value, such mail never reaches Gatepost; with another, mail that has come back loses its mark before our exception, and goes to Gatepost again until a hop limit ends it. Let the rule stand behind ours, or remove it' }
            $message = "$($does -join ' and '), and stands before ours (priority $($rule.Priority)): $told"
        }
        Write-GatepostCheck -Type 'transport rule' -Name $rule.Name -Bad $true -Fatal $false -Message $message
    }
}

function Test-GatepostRest {
    $script:Doing = 'reading the remote domains'
    foreach ($one in @(Get-RemoteDomain -ErrorAction Stop)) {
        $always = [string](Get-GatepostProperty -Object $one -Name 'TNEFEnabled') -eq 'True'
        $message = 'no rich text (TNEF) by force'
        if ($always) { $message = 'TNEFEnabled is $true: mail to this domain goes out as winmail.dat, and signatures break. Set-RemoteDomain -TNEFEnabled $false or $null' }
        Write-GatepostCheck -Type 'remote domain' -Name $one.Name -Bad $always -Fatal $false -Message $message
    }
    $script:Doing = 'reading the connection filter'
    foreach ($one in @(Get-HostedConnectionFilterPolicy -ErrorAction Stop)) {
        $addresses = @(Get-GatepostProperty -Object $one -Name 'IPAllowList' | Where-Object { $_ })
        $message = 'the IP allow list is empty'
        if ($addresses.Count -gt 0) { $message = "the IP allow list has $($addresses.Count) entries: it is no substitute for the connector, and mail from these addresses skips spam filtering" }
        Write-GatepostCheck -Type 'connection filter' -Name $one.Name -Bad ($addresses.Count -gt 0) -Fatal $false -Message $message
    }
    $group = Get-GatepostOptional -Value $PilotGroup
    if ($group) {
        $message = 'is there'
        $bad = -not (Test-GatepostGroupThere -Name $group)
        if ($bad) { $message = 'is no group of this tenant: the routing rule could not be bound to it' }
        Write-GatepostCheck -Type 'pilot group' -Name $group -Bad $bad -Fatal $true -Message $message
    }
}

# Without a host to connect to nothing goes from Exchange to Gatepost: no outbound connector and no rule.
$script:InboundAlone = @($SmartHosts | Where-Object { $_ }).Count -eq 0
try {
    if (-not $script:InboundAlone) { foreach ($pair in @(@('SmartHosts', $SmartHosts), @('LoopHeaderName', $LoopHeaderName))) { Assert-GatepostValue -Name $pair[0] -Value $pair[1] } }
    foreach ($pair in @(@('TlsSenderCertificateName', $TlsSenderCertificateName), @('AcceptedDomains', $AcceptedDomains))) { Assert-GatepostValue -Name $pair[0] -Value $pair[1] }
    Connect-GatepostTenant
    Write-GatepostCheck -Type 'session' -Name 'tenant' -Bad $false -Fatal $false -Message "tenant $TenantId, PowerShell $($PSVersionTable.PSVersion), ExchangeOnlineManagement $(@(Get-Module -Name 'ExchangeOnlineManagement')[0].Version)"
    Test-GatepostRole
    Test-GatepostOrganization
    Test-GatepostDomain
    $script:Rules = @()
    if (-not $script:InboundAlone) {
        $script:Doing = 'reading the transport rules'
        $script:Rules = @(Get-TransportRule -ErrorAction Stop)
    }
    Test-GatepostConnector
    if (-not $script:InboundAlone) { Test-GatepostRule }
    Test-GatepostRest
    if ($script:Failed -gt 0) { Deny-GatepostRun -Reason "$($script:Failed) check(s) failed: see the results with Action 'Failed'." }
} catch {
    $PSCmdlet.ThrowTerminatingError((Get-GatepostFailure -Record $_))
} finally {
    Disconnect-GatepostTenant
}
