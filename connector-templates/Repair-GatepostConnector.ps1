#Requires -Version 5.1

<#
.SYNOPSIS
    Sets back what somebody changed on Gatepost's connectors and mail flow rules.

.DESCRIPTION
    Reads the four objects, compares every property that Gatepost depends on, and sets only those that differ. What somebody has added to
    the two rules, and what 'gatepost connector diff' tells as drift, goes: any action beside ours, an ExpiryDate that has passed, and any
    condition or exception of the clean-up rule. Conditions that narrow the routing rule are told and stay; what leaves it nothing goes.

    What the rollout decides stays as it is: state, mode, group and place of the routing rule. The mark of the outbound connector as validated
    goes where another host or name in the certificate was validated: run Confirm-GatepostConnector.ps1 -Again then. Where one loop value is
    left in the rules, the comment of the clean-up rule forgets a rotation. Objects that are not Gatepost's are not looked at. A missing
    object is told, not made: Install-GatepostConnector.ps1 makes it.

    'gatepost connector diff' names the same differences from an export, with what each of them breaks.

.PARAMETER InboundConnectorName
    Name of the inbound connector.

.PARAMETER OutboundConnectorName
    Name of the outbound connector.

.PARAMETER RoutingRuleName
    Name of the mail flow rule that sends mail to Gatepost.

.PARAMETER CleanUpRuleName
    Name of the mail flow rule that takes the loop header off mail that has come back.

.PARAMETER SmartHosts
    Host names that Exchange connects to: 'hostname' of gatepost.toml. None where mail comes from applications alone: then the inbound
    connector alone is looked at.

.PARAMETER TlsDomain
    The name that the certificate of Gatepost's connector listener must hold.

.PARAMETER TlsSenderCertificateName
    The name in the certificate that Gatepost shows to Exchange; it must lie in an accepted domain of the tenant.

.PARAMETER CloudServicesMailEnabled
    'True' keeps mail internal on its way through Gatepost; both connectors and gatepost.toml (cloud_services_mail_enabled) must agree.

.PARAMETER SecretHeaderName
    Header that the routing rule sets: secret_header of gatepost.toml.

.PARAMETER LoopHeaderName
    Header that marks mail which was with Gatepost: loop_header of gatepost.toml.

.PARAMETER SecretFile
    The file with the values of the secret headers that render wrote beside the scripts. For its owner alone.

.PARAMETER ExportFolder
    Folder for the export of the state before the first change, each in a folder of its own; without it, beside the script.

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
    .\Repair-GatepostConnector.ps1 -WhatIf

    Tells every difference and changes nothing.

.EXAMPLE
    .\Repair-GatepostConnector.ps1 -UserPrincipalName admin@contoso.com

    Sets back what differs.

.EXAMPLE
    .\Repair-GatepostConnector.ps1 -AppId 00000000-0000-0000-0000-000000000000 -Organization contoso.onmicrosoft.com -CertificateThumbprint $thumbprint

    As an application, without a person.

.EXAMPLE
    foreach ($customer in 'contoso', 'fabrikam') { & ".\$customer\Repair-GatepostConnector.ps1" -WhatIf -AppId $app -Organization "$customer.onmicrosoft.com" -CertificateThumbprint $thumbprint }

    One tenant after another, each with the folder that was rendered for it. A session is opened and closed for each; a folder of another tenant is refused.

.OUTPUTS
    One object for each thing looked at: Type, Name, Action, Changes, Message. No value of a secret header stands in it.

.NOTES
    Exchange Administrator, or Organization Management. An application needs Exchange.ManageAsApp and the role Exchange Administrator.
#>
[CmdletBinding(SupportsShouldProcess = $true, ConfirmImpact = 'Medium', PositionalBinding = $false)]
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
    [string]$TlsDomain = '@TlsDomain@',

    [ValidatePattern('^(\*\.)?([A-Za-z0-9_-]+\.)+[A-Za-z0-9-]+$|^@\w+@$')]
    [string]$TlsSenderCertificateName = '@TlsSenderCertificateName@',

    [ValidateSet('True', 'False')]
    [string]$CloudServicesMailEnabled = '@CloudServicesMailEnabled@',

    [ValidatePattern('(?-i)^[!-9;-~]{1,76}\z|^@\w+@$')]
    [string]$SecretHeaderName = '@SecretHeaderName@',

    [ValidatePattern('(?-i)^[!-9;-~]{1,76}\z|^@\w+@$')]
    [string]$LoopHeaderName = '@LoopHeaderName@',

    [ValidateNotNullOrEmpty()]
    [string]$SecretFile = (Join-Path -Path $PSScriptRoot -ChildPath 'gatepost-secrets.json'),

    [string]$ExportFolder,

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

#region Secrets
# Values of the secret headers, out of the file that render wrote. Never printed.
function Read-GatepostSecret {
    $path = $PSCmdlet.GetUnresolvedProviderPathFromPSPath($SecretFile)
    $script:Doing = "reading the secrets file '$path'"
    if (-not (Test-Path -LiteralPath $path -PathType Leaf)) { Deny-GatepostRun -Reason "The secrets file '$path' is not there: 'gatepost connector render' writes it beside the scripts, or give -SecretFile." }
    $mode = Get-GatepostProperty -Object (Get-Item -LiteralPath $path -Force) -Name 'UnixFileMode'
    if ([System.Environment]::OSVersion.Platform -ne [System.PlatformID]::Win32NT -and [string]$mode -match 'Group|Other') { Write-Warning "'$path' may be read by others than its owner: chmod 600." }
    $text = ''
    try { $text = [System.IO.File]::ReadAllText($path) } catch { Deny-GatepostRun -Reason "The secrets file '$path' cannot be read: $($_.Exception.InnerException.Message) Whoever runs the scripts must own it (chown)." }
    $given = $null
    try { $given = $text | ConvertFrom-Json } catch { $given = $null }
    $texts = @{}
    foreach ($key in 'TenantId', 'SecretHeaderValue', 'LoopHeaderValue') {
        $texts[$key] = [string](Get-GatepostProperty -Object $given -Name $key)
        if (-not $texts[$key]) { Deny-GatepostRun -Reason "'$path' is no secrets file: it has no $key." }
    }
    $secretPrevious = @(Get-GatepostProperty -Object $given -Name 'SecretHeaderPrevious' | Where-Object { $_ } | ForEach-Object { [string]$_ })
    $loopPrevious = @(Get-GatepostProperty -Object $given -Name 'LoopHeaderPrevious' | Where-Object { $_ } | ForEach-Object { [string]$_ })
    $script:Hidden = @(@($texts['SecretHeaderValue'], $texts['LoopHeaderValue']) + $secretPrevious + $loopPrevious | Sort-Object -Property Length -Descending)
    if ($texts['TenantId'] -ne $TenantId) { Deny-GatepostRun -Reason "'$path' is for tenant $($texts['TenantId']), and the script is for tenant $TenantId. Nothing was read or changed." }
    foreach ($word in @($texts['LoopHeaderValue']) + $loopPrevious) { if ($word.Length -gt 128) { Deny-GatepostRun -Reason "A loop header value in '$path' has $($word.Length) characters; a word of a mail flow rule has at most 128." } }
    @{
        HeaderValue = $texts['SecretHeaderValue']; HeaderKnown = @(@($texts['SecretHeaderValue']) + $secretPrevious)
        LoopValue = $texts['LoopHeaderValue']; LoopKnown = @(@($texts['LoopHeaderValue']) + $loopPrevious | Sort-Object -Unique -CaseSensitive)
    }
}
#endregion Secrets

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

#region State
# Lets only the owner read a file or folder.
function Protect-GatepostPath {
    param([string]$Path)
    $item = Get-Item -LiteralPath $Path -Force
    if ([System.Environment]::OSVersion.Platform -ne [System.PlatformID]::Win32NT) {
        if ($null -eq $item.PSObject.Properties['UnixFileMode']) { Deny-GatepostRun -Reason "This PowerShell cannot restrict '$Path' to its owner: use 7.4 or later." }
        $mode = 'UserRead, UserWrite'
        if ($item.PSIsContainer) { $mode = 'UserRead, UserWrite, UserExecute' }
        $item.UnixFileMode = $mode
        return
    }
    $owner = [System.Security.Principal.WindowsIdentity]::GetCurrent().User
    if ($item.PSIsContainer) {
        $rights = New-Object -TypeName System.Security.AccessControl.DirectorySecurity
        $rule = New-Object -TypeName System.Security.AccessControl.FileSystemAccessRule -ArgumentList $owner, 'FullControl', 'ContainerInherit, ObjectInherit', 'None', 'Allow'
    } else {
        $rights = New-Object -TypeName System.Security.AccessControl.FileSecurity
        $rule = New-Object -TypeName System.Security.AccessControl.FileSystemAccessRule -ArgumentList $owner, 'FullControl', 'Allow'
    }
    $rights.SetAccessRuleProtection($true, $false)
    $rights.AddAccessRule($rule)
    if ($null -ne $item.PSObject.Methods['SetAccessControl']) { $item.SetAccessControl($rights) } else { [System.IO.FileSystemAclExtensions]::SetAccessControl($item, $rights) }
}

# A new file, restricted before anything stands in it.
function Write-GatepostFile {
    param([string]$Path, [byte[]]$Content)
    $script:Doing = "writing '$Path'"
    $stream = New-Object -TypeName System.IO.FileStream -ArgumentList $Path, ([System.IO.FileMode]::CreateNew)
    $stream.Dispose()
    Protect-GatepostPath -Path $Path
    [System.IO.File]::WriteAllBytes($Path, $Content)
}

# Reads the state of the tenant and writes it into a new folder; gives back the files. All is read before anything is written.
function Save-GatepostState {
    param([string]$Folder)
    $state = [ordered]@{}
    # From when and of whom: a copy of the files has another time.
    $state['Export'] = @([pscustomobject]@{ Time = [datetime]::UtcNow.ToString('yyyy-MM-ddTHH:mm:ssZ', [System.Globalization.CultureInfo]::InvariantCulture); TenantId = $TenantId })
    $script:Doing = 'reading the inbound connectors'
    $state['InboundConnector'] = @(Get-InboundConnector -ErrorAction Stop)
    $script:Doing = 'reading the outbound connectors'
    $state['OutboundConnector'] = @(Get-OutboundConnector -IncludeTestModeConnectors $true -ErrorAction Stop)
    $script:Doing = 'reading the transport rules'
    $state['TransportRule'] = @(Get-TransportRule -ErrorAction Stop)
    $script:Doing = 'reading the ARC configuration'
    $state['ArcConfig'] = @(Get-ArcConfig -ErrorAction Stop)
    $script:Doing = 'reading the accepted domains'
    $state['AcceptedDomain'] = @(Get-AcceptedDomain -ErrorAction Stop)
    $script:Doing = 'reading the organization configuration'
    $state['OrganizationConfig'] = @(Get-OrganizationConfig -ErrorAction Stop)
    $script:Doing = 'exporting the transport rule collection'
    $collection = @(Export-TransportRuleCollection -Confirm:$false -ErrorAction Stop)[0]
    $data = Get-GatepostProperty -Object $collection -Name 'FileData'
    if ($data -is [string]) { $data = [System.Convert]::FromBase64String($data) }

    $script:Doing = "making the folder '$Folder'"
    if (-not (Test-Path -LiteralPath $Folder -PathType Container)) {
        [void][System.IO.Directory]::CreateDirectory($Folder)
        Protect-GatepostPath -Path $Folder
    }
    foreach ($key in $state.Keys) {
        $path = [System.IO.Path]::Combine($Folder, "$key.json")
        if (Test-Path -LiteralPath $path) { Deny-GatepostRun -Reason "'$path' is already there: give another folder." }
    }
    $encoding = New-Object -TypeName System.Text.UTF8Encoding -ArgumentList $false
    foreach ($key in $state.Keys) {
        $path = [System.IO.Path]::Combine($Folder, "$key.json")
        $text = ConvertTo-Json -InputObject @($state[$key]) -Depth 6
        Write-GatepostFile -Path $path -Content $encoding.GetBytes($text + "`n")
        Write-GatepostResult -Type 'file' -Name $path -Action 'Created' -Message "$(@($state[$key]).Count) objects"
    }
    if ($null -ne $data) {
        $path = [System.IO.Path]::Combine($Folder, 'TransportRuleCollection.xml')
        Write-GatepostFile -Path $path -Content ([byte[]]$data)
        Write-GatepostResult -Type 'file' -Name $path -Action 'Created' -Message 'all rules, as Export-TransportRuleCollection gives them'
    }
}
#endregion State

#region Before
$script:StateSaved = $false

# Writes the state of the tenant into a folder before the first change of this run.
function Save-GatepostBefore {
    if ($script:StateSaved) { return }
    $was = $script:Doing
    $within = $PSScriptRoot
    if ($ExportFolder) { $within = $PSCmdlet.GetUnresolvedProviderPathFromPSPath($ExportFolder) }
    $time = [datetime]::UtcNow.ToString('yyyyMMdd-HHmmss-fff', [System.Globalization.CultureInfo]::InvariantCulture)
    $folder = [System.IO.Path]::Combine($within, "state-before-$time")
    $files = @(Save-GatepostState -Folder $folder)
    Write-Verbose "The state before the first change is in '$folder' ($($files.Count) files, for their owner alone: the rules hold the values of the secret headers)."
    $script:StateSaved = $true
    $script:Doing = $was
}
#endregion Before

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

#region Condition
# What of a rule's properties is a condition or an exception; the others are actions, dates, and what every rule has.
$script:Condition = '^(ADComparison|AnyOf|Attachment|BetweenMemberOf|ContentCharacterSet|ExceptIf|From|Has|Header|Manager|MessageContains|MessageSize|MessageType|Recipient|SCLOver|Sender|Sent|Subject|With)'

# Whether an exception of the routing rule leaves nothing for it: for the tenant's own senders, whose mail it takes, or for the scope it asks for.
function Test-GatepostVoid {
    param($Rule, [string]$Name)
    $value = [string](Get-GatepostProperty -Object $Rule -Name $Name)
    if ($Name -eq 'ExceptIfFromScope') { return $value -eq 'InOrganization' }
    $Name -eq 'ExceptIfSentToScope' -and $value -and $value -eq [string](Get-GatepostProperty -Object $Rule -Name 'SentToScope')
}
#endregion Condition

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

#region Turn
# What the comment of the clean-up rule remembers of a rotation.
$script:Turn = ' Rotation begun with loop value #([0-9a-f]{8})\.$'
#endregion Turn

#region Objects
# What the four objects must hold, how it reads back, and the cmdlets that bring it there.
$script:Description = "$($script:Mark). Made and changed by the scripts of 'gatepost connector render'; remove it with Remove-GatepostConnector.ps1."

# How a property is compared; one that is not here is a Boolean or a text whose case does not matter.
$script:Compared = @{
    Comment = 'Mark'; Comments = 'Mark'
    SenderDomains = 'Set'; AssociatedAcceptedDomains = 'Set'; TrustedOrganizations = 'Set'; SmartHosts = 'Set'; RecipientDomains = 'Set'
    RouteMessageOutboundConnector = 'Connector'; SetHeaderValue = 'Secret'
    ExceptIfHeaderContainsWords = 'Words'; HeaderContainsWords = 'Words'; ExceptIfMessageSizeOver = 'Size'
}
# What Exchange wants in the same call.
$script:Together = @{
    UseMXRecord = 'SmartHosts'; SmartHosts = 'UseMXRecord'; TlsSettings = 'TlsDomain'; TlsDomain = 'TlsSettings'
    SetHeaderName = 'SetHeaderValue'; SetHeaderValue = 'SetHeaderName'
    ExceptIfHeaderContainsMessageHeader = 'ExceptIfHeaderContainsWords'; ExceptIfHeaderContainsWords = 'ExceptIfHeaderContainsMessageHeader'
    HeaderContainsMessageHeader = 'HeaderContainsWords'; HeaderContainsWords = 'HeaderContainsMessageHeader'
    CloudServicesMailEnabled = 'TreatMessagesAsInternal'
}

# What else a mail flow rule can hold, with the value that takes it off.
$script:Removable = @{
    ADComparisonAttribute = $null; ADComparisonOperator = $null; AddManagerAsRecipientType = $null; AddToRecipients = $null; AnyOfCcHeader = $null
    AnyOfCcHeaderMemberOf = $null; AnyOfRecipientAddressContainsWords = $null; AnyOfRecipientAddressMatchesPatterns = $null; AnyOfToCcHeader = $null
    AnyOfToCcHeaderMemberOf = $null; AnyOfToHeader = $null; AnyOfToHeaderMemberOf = $null; ApplyClassification = $null
    ApplyHtmlDisclaimerFallbackAction = $null; ApplyHtmlDisclaimerLocation = $null; ApplyHtmlDisclaimerText = $null; ApplyOME = $false
    ApplyRightsProtectionCustomizationTemplate = $null; ApplyRightsProtectionTemplate = $null; AttachmentContainsWords = $null
    AttachmentExtensionMatchesWords = $null; AttachmentHasExecutableContent = $false; AttachmentIsPasswordProtected = $false; AttachmentIsUnsupported = $false
    AttachmentMatchesPatterns = $null; AttachmentNameMatchesPatterns = $null; AttachmentProcessingLimitExceeded = $false
    AttachmentPropertyContainsWords = $null; AttachmentSizeOver = $null; BetweenMemberOf1 = $null; BetweenMemberOf2 = $null; BlindCopyTo = $null
    ContentCharacterSetContainsWords = $null; CopyTo = $null; DeleteMessage = $false; ExceptIfADComparisonAttribute = $null
    ExceptIfADComparisonOperator = $null; ExceptIfAnyOfCcHeader = $null; ExceptIfAnyOfCcHeaderMemberOf = $null
    ExceptIfAnyOfRecipientAddressContainsWords = $null; ExceptIfAnyOfRecipientAddressMatchesPatterns = $null; ExceptIfAnyOfToCcHeader = $null
    ExceptIfAnyOfToCcHeaderMemberOf = $null; ExceptIfAnyOfToHeader = $null; ExceptIfAnyOfToHeaderMemberOf = $null; ExceptIfAttachmentContainsWords = $null
    ExceptIfAttachmentExtensionMatchesWords = $null; ExceptIfAttachmentHasExecutableContent = $false; ExceptIfAttachmentIsPasswordProtected = $false
    ExceptIfAttachmentIsUnsupported = $false; ExceptIfAttachmentMatchesPatterns = $null; ExceptIfAttachmentNameMatchesPatterns = $null
    ExceptIfAttachmentProcessingLimitExceeded = $false; ExceptIfAttachmentPropertyContainsWords = $null; ExceptIfAttachmentSizeOver = $null
    ExceptIfBetweenMemberOf1 = $null; ExceptIfBetweenMemberOf2 = $null; ExceptIfContentCharacterSetContainsWords = $null; ExceptIfFrom = $null
    ExceptIfFromAddressContainsWords = $null; ExceptIfFromAddressMatchesPatterns = $null; ExceptIfFromMemberOf = $null; ExceptIfFromScope = $null
    ExceptIfHasClassification = $null; ExceptIfHasNoClassification = $false; ExceptIfHeaderContainsMessageHeader = $null; ExceptIfHeaderContainsWords = $null
    ExceptIfHeaderMatchesMessageHeader = $null; ExceptIfHeaderMatchesPatterns = $null; ExceptIfManagerAddresses = $null; ExceptIfManagerForEvaluatedUser = $null
    ExceptIfMessageSizeOver = $null; ExceptIfMessageTypeMatches = $null; ExceptIfRecipientADAttributeContainsWords = $null
    ExceptIfRecipientADAttributeMatchesPatterns = $null; ExceptIfRecipientAddressContainsWords = $null; ExceptIfRecipientAddressMatchesPatterns = $null
    ExceptIfRecipientDomainIs = $null; ExceptIfSCLOver = $null; ExceptIfSenderADAttributeContainsWords = $null; ExceptIfSenderADAttributeMatchesPatterns = $null
    ExceptIfSenderDomainIs = $null; ExceptIfSenderIpRanges = $null; ExceptIfSenderManagementRelationship = $null; ExceptIfSentTo = $null
    ExceptIfSentToMemberOf = $null; ExceptIfSentToScope = $null; ExceptIfSubjectContainsWords = $null; ExceptIfSubjectMatchesPatterns = $null
    ExceptIfSubjectOrBodyContainsWords = $null; ExceptIfSubjectOrBodyMatchesPatterns = $null; ExceptIfWithImportance = $null; From = $null
    FromAddressContainsWords = $null; FromAddressMatchesPatterns = $null; FromMemberOf = $null; FromScope = $null; GenerateIncidentReport = $null
    GenerateNotification = $null; HasClassification = $null; HasNoClassification = $false; HeaderContainsMessageHeader = $null; HeaderContainsWords = $null
    HeaderMatchesMessageHeader = $null; HeaderMatchesPatterns = $null; IncidentReportContent = $null; ManagerAddresses = $null; ManagerForEvaluatedUser = $null
    MessageSizeOver = $null; MessageTypeMatches = $null; ModerateMessageByManager = $false; ModerateMessageByUser = $null; PrependSubject = $null
    RecipientADAttributeContainsWords = $null; RecipientADAttributeMatchesPatterns = $null; RecipientAddressContainsWords = $null
    RecipientAddressMatchesPatterns = $null; RecipientDomainIs = $null; RedirectMessageTo = $null; RejectMessageEnhancedStatusCode = $null
    RejectMessageReasonText = $null; RemoveHeader = $null; RemoveOME = $false; RemoveOMEv2 = $false; RemoveRMSAttachmentEncryption = $false
    RouteMessageOutboundConnector = $null; RouteMessageOutboundRequireTls = $false; SCLOver = $null; SenderADAttributeContainsWords = $null
    SenderADAttributeMatchesPatterns = $null; SenderDomainIs = $null; SenderIpRanges = $null; SenderManagementRelationship = $null; SentTo = $null
    SentToMemberOf = $null; SentToScope = $null; SetHeaderName = $null; SetHeaderValue = $null; SetSCL = $null; SubjectContainsWords = $null
    SubjectMatchesPatterns = $null; SubjectOrBodyContainsWords = $null; SubjectOrBodyMatchesPatterns = $null; WithImportance = $null; ActivationDate = $null
    ExpiryDate = $null}
# What means nothing without another one, and goes with it.
$script:Companion = @{
    ApplyHtmlDisclaimerLocation = 'ApplyHtmlDisclaimerText'; ApplyHtmlDisclaimerFallbackAction = 'ApplyHtmlDisclaimerText'
    IncidentReportContent = 'GenerateIncidentReport'; SetHeaderValue = 'SetHeaderName'
}
# On the routing rule: what the scripts of the kit set at times, and an action that changes nothing on the way to Gatepost.
$script:Usual = @('ExceptIfHeaderMatchesMessageHeader', 'ExceptIfHeaderMatchesPatterns', 'ExceptIfMessageSizeOver', 'ExceptIfMessageTypeMatches', 'FromMemberOf', 'SentToScope')
$script:Harmless = @('RouteMessageOutboundRequireTls')

# A list as one text, without order, empty members and what Exchange adds, each as a host: '*' reads back as 'smtp:*;1'.
function ConvertTo-GatepostSet {
    param($Value)
    $members = @($Value | Where-Object { $null -ne $_ -and '' -ne [string]$_ } | ForEach-Object { ConvertTo-GatepostHost -Text (([string]$_) -replace '^smtp:', '' -replace ';\d+$', '') })
    @($members | Sort-Object -Unique) -join ', '
}

# A size in bytes: 23592960, 22.5MB and '22.5 MB (23,592,960 bytes)' are one.
function ConvertTo-GatepostByte {
    param([string]$Value)
    if ($Value -match '\(([\d,.]+) bytes\)') { return [double]($Matches[1] -replace '[,.]', '') }
    if ($Value -match '^\s*([\d.]+)\s*(B|KB|MB|GB)?\s*$') {
        $unit = @{ B = 1; KB = 1KB; MB = 1MB; GB = 1GB }
        $factor = 1
        if ($Matches.ContainsKey(2)) { $factor = $unit[$Matches[2]] }
        return [math]::Floor([double]::Parse($Matches[1], [System.Globalization.CultureInfo]::InvariantCulture) * $factor)
    }
    [double]-1
}

# Whether a property is as it must be. -Known: values of a secret header that Gatepost takes, the present one first.
function Test-GatepostSame {
    param([string]$Name, $Is, $Should, [string[]]$Known, $Outbound)
    $kind = ''
    if ($script:Compared.ContainsKey($Name)) { $kind = $script:Compared[$Name] }
    if ($kind -eq 'Mark') { return ([string]$Is).StartsWith($script:Mark, [System.StringComparison]::Ordinal) }
    if ($kind -eq 'Set') { return (ConvertTo-GatepostSet -Value $Is) -eq (ConvertTo-GatepostSet -Value $Should) }
    if ($kind -eq 'Size') { return (ConvertTo-GatepostByte -Value ([string]$Is)) -eq (ConvertTo-GatepostByte -Value ([string]$Should)) }
    if ($kind -eq 'Secret') { return $Known -ccontains [string]$Is }
    if ($kind -eq 'Words') {
        $words = @($Is | Where-Object { $null -ne $_ -and '' -ne [string]$_ } | ForEach-Object { [string]$_ })
        return $words -ccontains $Known[0] -and @($words | Where-Object { $Known -cnotcontains $_ }).Count -eq 0
    }
    if ($kind -eq 'Connector') {
        return (Test-GatepostWay -Rule ([pscustomobject]@{ RouteMessageOutboundConnector = $Is }) -Name ([string]$Should) -Connector $Outbound)
    }
    if ($Should -is [bool]) { return ([string]$Is -eq 'True') -eq $Should }
    [string]$Is -eq [string]$Should
}

# Names of the properties that differ, with those that Exchange wants beside them.
function Get-GatepostDrift {
    param($Object, [hashtable]$Wanted, [string[]]$SecretKnown = @(), [string[]]$LoopKnown = @(), $Outbound)
    $names = @()
    foreach ($key in @($Wanted.Keys | Sort-Object)) {
        $known = $LoopKnown
        if ($key -eq 'SetHeaderValue') { $known = $SecretKnown }
        if (-not (Test-GatepostSame -Name $key -Is (Get-GatepostProperty -Object $Object -Name $key) -Should $Wanted[$key] -Known $known -Outbound $Outbound)) { $names += $key }
    }
    $names
}

# Differences as text. Values of secret headers never stand in it.
function Get-GatepostChange {
    param($Object, [hashtable]$Wanted, [string[]]$Name)
    foreach ($key in @($Name)) {
        if (-not $key) { continue }
        $kind = ''
        if ($script:Compared.ContainsKey($key)) { $kind = $script:Compared[$key] }
        $is = Get-GatepostProperty -Object $Object -Name $key
        if ($kind -eq 'Mark') { "${key}: without the mark -> with it" }
        elseif ($kind -eq 'Secret') { "${key}: another secret value -> the one of the secrets file" }
        elseif ($kind -eq 'Words') { "${key}: $(@($is | Where-Object { $_ }).Count) secret value(s) -> $(@($Wanted[$key]).Count), those of the secrets file" }
        elseif ($kind -eq 'Set') { "${key}: '$(ConvertTo-GatepostSet -Value $is)' -> '$(ConvertTo-GatepostSet -Value $Wanted[$key])'" }
        else { Protect-GatepostText -Text "${key}: '$is' -> '$($Wanted[$key])'" }
    }
}

# What somebody has added to a rule: the names to take off (Off), these as text (Changes), and what is left as it is (Left).
# -Own: what the rule must hold. -Every: also conditions, and a date ahead: the clean-up rule takes all mail that comes back, today.
function Get-GatepostAdded {
    param($Rule, [string[]]$Own, [bool]$Every)
    $added = @{ Off = @(); Changes = @(); Left = @() }
    $now = [datetime]::UtcNow
    foreach ($key in @($script:Removable.Keys | Sort-Object)) {
        $value = Get-GatepostProperty -Object $Rule -Name $key
        if ($Own -contains $key -or -not (Test-GatepostHeld -Name $key -Value $value)) { continue }
        if (-not $Every -and $script:Usual -contains $key) { continue }
        $goes = $Every
        if ($key -eq 'ExpiryDate' -or $key -eq 'ActivationDate') {
            $moment = ConvertTo-GatepostMoment -Value $value
            $isPast = $null -ne $moment -and $moment -le $now
            if ($isPast -and $key -eq 'ActivationDate') { continue }
            $goes = $isPast -or ($Every -and $null -ne $moment -and $key -eq 'ActivationDate')
        } elseif ($script:Companion.ContainsKey($key)) {
            $first = $script:Companion[$key]
            if ($Own -contains $first -or -not (Test-GatepostHeld -Name $first -Value (Get-GatepostProperty -Object $Rule -Name $first))) { continue }
            $goes = $true
        } elseif ($key -match $script:Condition) {
            # Mail with the loop header is what the routing rule leaves out: with this condition it takes none.
            $header = Get-GatepostProperty -Object $Rule -Name ($key -replace '(Words|Patterns)$', 'MessageHeader')
            if ($key -match '^Header(Contains|Matches)' -and [string]$header -eq $LoopHeaderName) { $goes = $true }
            if (Test-GatepostVoid -Rule $Rule -Name $key) { $goes = $true }
        } elseif ($script:Harmless -notcontains $key) { $goes = $true }
        if (-not $goes) {
            $added['Left'] += $key
            continue
        }
        $added['Off'] += $key
        # Without its value: nobody can tell which word was a loop value once.
        $added['Changes'] += "${key}: set -> nothing"
    }
    $added
}

# One function for each object: creates it, sets what differs, or leaves it; writes one result.
function Invoke-GatepostInbound {
    param($Existing)
    $type = 'inbound connector'
    $name = $InboundConnectorName
    $wanted = @{
        Comment = $script:Description; Enabled = $true; ConnectorType = 'OnPremises'; SenderDomains = @('*'); TlsSenderCertificateName = $TlsSenderCertificateName
        RequireTls = $true; RestrictDomainsToCertificate = $true; RestrictDomainsToIPAddresses = $false
        CloudServicesMailEnabled = ($CloudServicesMailEnabled -eq 'True'); TreatMessagesAsInternal = $false; AssociatedAcceptedDomains = $null
        TrustedOrganizations = $null
    }
    $target = "$type '$name' of tenant $TenantId"
    if ($null -eq $Existing) {
        $new = @{ Name = $name }
        foreach ($key in $wanted.Keys) { if ($null -ne $wanted[$key]) { $new[$key] = $wanted[$key] } }
        $action = Get-GatepostHeld -Would 'WouldCreate'
        if ($PSCmdlet.ShouldProcess($target, 'Create')) {
            $script:Doing = "creating the $type '$name'"
            Save-GatepostBefore
            [void](New-InboundConnector @new -Confirm:$false -ErrorAction Stop)
            $action = 'Created'
        }
        return (Write-GatepostResult -Type $type -Name $name -Action $action -Message "known by the certificate name $TlsSenderCertificateName")
    }
    $drift = @(Get-GatepostDrift -Object $Existing -Wanted $wanted)
    if ($drift.Count -eq 0) { return (Write-GatepostResult -Type $type -Name $name -Action 'Unchanged') }
    $changes = @(Get-GatepostChange -Object $Existing -Wanted $wanted -Name $drift)
    $set = @{ Identity = $name }
    foreach ($key in $wanted.Keys) { if ($drift -contains $key -or @($drift | ForEach-Object { $script:Together[$_] }) -contains $key) { $set[$key] = $wanted[$key] } }
    $action = Get-GatepostHeld -Would 'WouldUpdate'
    if ($PSCmdlet.ShouldProcess($target, 'Set ' + ($changes -join '; '))) {
        $script:Doing = "setting $($drift -join ', ') of the $type '$name'"
        Save-GatepostBefore
        Set-InboundConnector @set -Confirm:$false -ErrorAction Stop
        $action = 'Updated'
    }
    Write-GatepostResult -Type $type -Name $name -Action $action -Changes $changes
}

function Invoke-GatepostOutbound {
    param($Existing)
    $type = 'outbound connector'
    $name = $OutboundConnectorName
    $wanted = @{
        Comment = $script:Description; Enabled = $true; ConnectorType = 'OnPremises'; IsTransportRuleScoped = $true; UseMXRecord = $false; SmartHosts = $SmartHosts
        TlsSettings = 'DomainValidation'; TlsDomain = $TlsDomain; CloudServicesMailEnabled = ($CloudServicesMailEnabled -eq 'True'); TestMode = $false
        RouteAllMessagesViaOnPremises = $false; AllAcceptedDomains = $false; RecipientDomains = $null
    }
    # Exchange would want a TLSA record for Gatepost's name, which need not have one; None and Opportunistic are an administrator's choice.
    if ($null -ne $Existing -and [string](Get-GatepostProperty -Object $Existing -Name 'SmtpDaneMode') -eq 'Mandatory') { $wanted['SmtpDaneMode'] = 'Opportunistic' }
    # What a new connector does not have anyway.
    $unset = @('RouteAllMessagesViaOnPremises', 'AllAcceptedDomains', 'RecipientDomains')
    $target = "$type '$name' of tenant $TenantId"
    if ($null -eq $Existing) {
        $new = @{ Name = $name }
        foreach ($key in $wanted.Keys) { if ($unset -notcontains $key) { $new[$key] = $wanted[$key] } }
        $action = Get-GatepostHeld -Would 'WouldCreate'
        if ($PSCmdlet.ShouldProcess($target, 'Create')) {
            $script:Doing = "creating the $type '$name'"
            Save-GatepostBefore
            [void](New-OutboundConnector @new -Confirm:$false -ErrorAction Stop)
            $action = 'Created'
        }
        return (Write-GatepostResult -Type $type -Name $name -Action $action -Message "to $($SmartHosts -join ', '), whose certificate must name $TlsDomain")
    }
    $drift = @(Get-GatepostDrift -Object $Existing -Wanted $wanted)
    if ($drift.Count -eq 0) { return (Write-GatepostResult -Type $type -Name $name -Action 'Unchanged') }
    $changes = @(Get-GatepostChange -Object $Existing -Wanted $wanted -Name $drift)
    $set = @{ Identity = $name }
    foreach ($key in $wanted.Keys) { if ($drift -contains $key -or @($drift | ForEach-Object { $script:Together[$_] }) -contains $key) { $set[$key] = $wanted[$key] } }
    $message = ''
    $proven = @($drift | Where-Object { @('UseMXRecord', 'SmartHosts', 'TlsSettings', 'TlsDomain') -contains $_ })
    if ($proven.Count -gt 0 -and [string](Get-GatepostProperty -Object $Existing -Name 'IsValidated') -eq 'True') {
        # The test mail went another way than mail goes from now on.
        $set['IsValidated'] = $false
        $changes += "IsValidated: 'True' -> 'False'"
        $message = 'have it validated again: Confirm-GatepostConnector.ps1 -Again'
        Write-Warning "The outbound connector '$name' was validated with another $($proven -join ', '): that proves nothing of the way it gets now. Run Confirm-GatepostConnector.ps1 -Again: before that Set-GatepostRollout.ps1 refuses Pilot and Everyone."
    }
    $action = Get-GatepostHeld -Would 'WouldUpdate'
    if ($PSCmdlet.ShouldProcess($target, 'Set ' + ($changes -join '; '))) {
        $script:Doing = "setting $($drift -join ', ') of the $type '$name'"
        Save-GatepostBefore
        Set-OutboundConnector @set -Confirm:$false -ErrorAction Stop
        $action = 'Updated'
    }
    Write-GatepostResult -Type $type -Name $name -Action $action -Changes $changes -Message $message
}

# -Creation: what only a new rule gets. -Further: what this run was told to set beside the rest.
function Invoke-GatepostRoute {
    param($Existing, $Outbound, [hashtable]$Secret, [hashtable]$Creation, [hashtable]$Further)
    $type = 'transport rule'
    $name = $RoutingRuleName
    $wanted = @{
        Comments = $script:Description; FromScope = 'InOrganization'; RouteMessageOutboundConnector = $OutboundConnectorName
        SetHeaderName = $SecretHeaderName; SetHeaderValue = $Secret['HeaderValue']; StopRuleProcessing = $true
        ExceptIfHeaderContainsMessageHeader = $LoopHeaderName; ExceptIfHeaderContainsWords = $Secret['LoopKnown']; SetAuditSeverity = 'Low'
    }
    foreach ($extra in $Further.Keys) { $wanted[$extra] = $Further[$extra] }
    # One that is taken over begins as a new one does, but for its place: what somebody has begun with it is not our rollout.
    # One with the tenant's secret is ours, whatever its comment says.
    $adopted = $null -ne $Existing -and -not (Test-GatepostMark -Object $Existing) -and $Secret['HeaderKnown'] -cnotcontains [string](Get-GatepostProperty -Object $Existing -Name 'SetHeaderValue')
    if ($adopted) {
        if ($Creation.ContainsKey('Mode')) { $wanted['Mode'] = $Creation['Mode'] }
        if ($Creation.ContainsKey('FromMemberOf')) { $wanted['FromMemberOf'] = $Creation['FromMemberOf'] }
        if ($Creation.ContainsKey('RuleErrorAction')) { $wanted['RuleErrorAction'] = $Creation['RuleErrorAction'] }
    }
    $target = "$type '$name' of tenant $TenantId"
    if ($null -eq $Existing) {
        $new = @{ Name = $name }
        foreach ($key in $wanted.Keys) { $new[$key] = $wanted[$key] }
        foreach ($first in $Creation.Keys) { $new[$first] = $Creation[$first] }
        $action = Get-GatepostHeld -Would 'WouldCreate'
        if ($PSCmdlet.ShouldProcess($target, 'Create, disabled')) {
            $script:Doing = "creating the $type '$name'"
            Save-GatepostBefore
            [void](New-TransportRule @new -Confirm:$false -ErrorAction Stop)
            $action = 'Created'
        }
        return (Write-GatepostResult -Type $type -Name $name -Action $action -Message 'disabled: it sends nothing until Set-GatepostRollout.ps1 enables it')
    }
    $drift = @(Get-GatepostDrift -Object $Existing -Wanted $wanted -SecretKnown $Secret['HeaderKnown'] -LoopKnown (@($Secret['LoopValue']) + $Secret['LoopKnown']) -Outbound $Outbound)
    $message = ''
    if ([string](Get-GatepostProperty -Object $Existing -Name 'SetHeaderValue') -cne $Secret['HeaderValue'] -and $drift -notcontains 'SetHeaderValue') { $message = 'SetHeaderValue is still a previous value: Update-GatepostSecret.ps1 sets the present one' }
    $sends = -not $adopted -and [string](Get-GatepostProperty -Object $Existing -Name 'State') -eq 'Enabled' -and [string](Get-GatepostProperty -Object $Existing -Name 'Mode') -eq 'Enforce'
    if ($sends -and ($drift -contains 'SetHeaderValue' -or $drift -contains 'ExceptIfHeaderContainsWords')) { Write-Warning "The rule '$name' sends mail, and with a value that the secrets file does not have. Where that file is older than the rule, mail is refused from now on (550 5.7.1, or 554 5.4.6): it must be of the last rendering." }
    $added = Get-GatepostAdded -Rule $Existing -Own @($wanted.Keys) -Every $false
    if ($added['Left'].Count -gt 0) { $message = "$(if ($message) { "$message; " })also holds $($added['Left'] -join ', '), left as it is" }
    $changes = @(Get-GatepostChange -Object $Existing -Wanted $wanted -Name $drift) + $added['Changes']
    $stops = $adopted -and [string](Get-GatepostProperty -Object $Existing -Name 'State') -eq 'Enabled'
    if ($stops) {
        $changes += "State: 'Enabled' -> 'Disabled'"
        $message = "disabled: it sends nothing until Set-GatepostRollout.ps1 enables it$(if ($message) { "; $message" })"
    }
    if ($changes.Count -eq 0) { return (Write-GatepostResult -Type $type -Name $name -Action 'Unchanged' -Message $message) }
    $set = @{ Identity = $name }
    foreach ($key in $script:Removable.Keys) { if ($added['Off'] -contains $key) { $set[$key] = $script:Removable[$key] } }
    foreach ($key in $wanted.Keys) { if ($drift -contains $key -or @($drift | ForEach-Object { $script:Together[$_] }) -contains $key) { $set[$key] = $wanted[$key] } }
    $action = Get-GatepostHeld -Would 'WouldUpdate'
    if ($PSCmdlet.ShouldProcess($target, 'Set ' + ($changes -join '; '))) {
        $script:Doing = "setting $(@($set.Keys | Where-Object { $_ -ne 'Identity' } | Sort-Object) -join ', ') of the $type '$name'"
        Save-GatepostBefore
        if ($stops) { Disable-TransportRule -Identity $name -Confirm:$false -ErrorAction Stop }
        Set-TransportRule @set -Confirm:$false -ErrorAction Stop
        $action = 'Updated'
    }
    Write-GatepostResult -Type $type -Name $name -Action $action -Changes $changes -Message $message
}

# -Routing: the rule that this one stands directly behind; nothing where -WhatIf has not created it.
function Invoke-GatepostCleanUp {
    param($Existing, $Routing, [hashtable]$Secret, [int]$NewPriority)
    $type = 'transport rule'
    $name = $CleanUpRuleName
    $wanted = @{
        Comments = $script:Description; HeaderContainsMessageHeader = $LoopHeaderName; HeaderContainsWords = $Secret['LoopKnown']
        RemoveHeader = $LoopHeaderName; StopRuleProcessing = $false; Mode = 'Enforce'; SetAuditSeverity = 'Low'
    }
    $place = $NewPriority
    if ($null -ne $Routing) { $place = [int]$Routing.Priority + 1 }
    $target = "$type '$name' of tenant $TenantId"
    if ($null -eq $Existing) {
        $new = @{ Name = $name; Enabled = $true; Priority = $place }
        foreach ($key in $wanted.Keys) { $new[$key] = $wanted[$key] }
        $action = Get-GatepostHeld -Would 'WouldCreate'
        if ($PSCmdlet.ShouldProcess($target, 'Create')) {
            $script:Doing = "creating the $type '$name'"
            Save-GatepostBefore
            [void](New-TransportRule @new -Confirm:$false -ErrorAction Stop)
            $action = 'Created'
        }
        return (Write-GatepostResult -Type $type -Name $name -Action $action -Message "takes $LoopHeaderName off mail that has come back")
    }
    $drift = @(Get-GatepostDrift -Object $Existing -Wanted $wanted -LoopKnown (@($Secret['LoopValue']) + $Secret['LoopKnown']))
    $added = Get-GatepostAdded -Rule $Existing -Own @($wanted.Keys) -Every $true
    $message = ''
    if ($added['Left'].Count -gt 0) { $message = "also holds $($added['Left'] -join ', '), left as it is" }
    $changes = @(Get-GatepostChange -Object $Existing -Wanted $wanted -Name $drift) + $added['Changes']
    $set = @{ Identity = $name }
    # With one loop value left, the rotation that the comment remembers is over or given up.
    $comment = [string](Get-GatepostProperty -Object $Existing -Name 'Comments')
    if ($comment -match $script:Turn -and $drift -notcontains 'Comments' -and $Secret['LoopKnown'].Count -eq 1) {
        $set['Comments'] = $comment -replace $script:Turn, ''
        $changes += 'Comments: no longer that a rotation is under way'
    }
    foreach ($key in $script:Removable.Keys) { if ($added['Off'] -contains $key) { $set[$key] = $script:Removable[$key] } }
    foreach ($key in $wanted.Keys) { if ($drift -contains $key -or @($drift | ForEach-Object { $script:Together[$_] }) -contains $key) { $set[$key] = $wanted[$key] } }
    if ($null -ne $Routing -and [int]$Existing.Priority -ne $place) {
        # A rule that stood before the routing rule leaves its place, and the routing rule moves up.
        if ([int]$Existing.Priority -lt [int]$Routing.Priority) { $place = $place - 1 }
        $set['Priority'] = $place
        $changes += "Priority: $($Existing.Priority) -> $place, directly behind '$RoutingRuleName'"
    }
    $off = [string](Get-GatepostProperty -Object $Existing -Name 'State') -ne 'Enabled'
    if ($off) { $changes += "State: 'Disabled' -> 'Enabled'" }
    if ($changes.Count -eq 0) { return (Write-GatepostResult -Type $type -Name $name -Action 'Unchanged' -Message $message) }
    $action = Get-GatepostHeld -Would 'WouldUpdate'
    if ($PSCmdlet.ShouldProcess($target, 'Set ' + ($changes -join '; '))) {
        Save-GatepostBefore
        if ($set.Count -gt 1) {
            $script:Doing = "setting the $type '$name'"
            Set-TransportRule @set -Confirm:$false -ErrorAction Stop
        }
        if ($off) {
            $script:Doing = "enabling the $type '$name'"
            Enable-TransportRule -Identity $name -Mode 'Enforce' -Confirm:$false -ErrorAction Stop
        }
        $action = 'Updated'
    }
    Write-GatepostResult -Type $type -Name $name -Action $action -Changes $changes -Message $message
}

# Reads the four objects and refuses what is not ours, before anything is changed.
function Read-GatepostObject {
    param([bool]$Adopt = $false)
    $script:Doing = 'reading the inbound connectors'
    $inbound = @(Get-InboundConnector -ErrorAction Stop)
    $script:Doing = 'reading the outbound connectors'
    $outbound = @(Get-OutboundConnector -IncludeTestModeConnectors $true -ErrorAction Stop)
    $script:Doing = 'reading the transport rules'
    $rules = @(Get-TransportRule -ErrorAction Stop)
    @{
        Inbound = (Find-GatepostObject -List $inbound -Name $InboundConnectorName -Type 'inbound connector' -Adopt $Adopt)
        Outbound = (Find-GatepostObject -List $outbound -Name $OutboundConnectorName -Type 'outbound connector' -Adopt $Adopt)
        Routing = (Find-GatepostObject -List $rules -Name $RoutingRuleName -Type 'transport rule' -Adopt $Adopt)
        CleanUp = (Find-GatepostObject -List $rules -Name $CleanUpRuleName -Type 'transport rule' -Adopt $Adopt)
    }
}
#endregion Objects

# Without a host to connect to nothing goes from Exchange to Gatepost.
$inboundAlone = @($SmartHosts | Where-Object { $_ }).Count -eq 0
try {
    if (-not $inboundAlone) {
        foreach ($pair in @(@('SmartHosts', $SmartHosts), @('TlsDomain', $TlsDomain), @('SecretHeaderName', $SecretHeaderName), @('LoopHeaderName', $LoopHeaderName))) { Assert-GatepostValue -Name $pair[0] -Value $pair[1] }
    }
    foreach ($pair in @(@('TlsSenderCertificateName', $TlsSenderCertificateName), @('CloudServicesMailEnabled', $CloudServicesMailEnabled), @('TenantId', $TenantId))) { Assert-GatepostValue -Name $pair[0] -Value $pair[1] }
    if (-not $inboundAlone) { $secret = Read-GatepostSecret }
    Connect-GatepostTenant
    if ($inboundAlone) {
        $script:Doing = 'reading the inbound connectors'
        $own = Find-GatepostObject -List @(Get-InboundConnector -ErrorAction Stop) -Name $InboundConnectorName -Type 'inbound connector'
        if ($null -ne $own) { Invoke-GatepostInbound -Existing $own }
        else {
            Write-GatepostResult -Type 'inbound connector' -Name $InboundConnectorName -Action 'Missing' -Message 'Install-GatepostConnector.ps1 makes it'
            Write-Warning "Missing: $InboundConnectorName. Install-GatepostConnector.ps1 makes what is missing."
        }
        return
    }
    $objects = Read-GatepostObject
    $missing = @(
        if ($null -eq $objects['Inbound']) { Write-GatepostResult -Type 'inbound connector' -Name $InboundConnectorName -Action 'Missing' -Message 'Install-GatepostConnector.ps1 makes it' }
        if ($null -eq $objects['Outbound']) { Write-GatepostResult -Type 'outbound connector' -Name $OutboundConnectorName -Action 'Missing' -Message 'Install-GatepostConnector.ps1 makes it' }
        if ($null -eq $objects['Routing']) { Write-GatepostResult -Type 'transport rule' -Name $RoutingRuleName -Action 'Missing' -Message 'Install-GatepostConnector.ps1 makes it' }
        if ($null -eq $objects['CleanUp']) { Write-GatepostResult -Type 'transport rule' -Name $CleanUpRuleName -Action 'Missing' -Message 'Install-GatepostConnector.ps1 makes it' }
    )
    if ($null -ne $objects['Inbound']) { Invoke-GatepostInbound -Existing $objects['Inbound'] }
    if ($null -ne $objects['Outbound']) { Invoke-GatepostOutbound -Existing $objects['Outbound'] }
    # A rule cannot be pointed at a connector that is not there.
    if ($null -ne $objects['Routing'] -and $null -ne $objects['Outbound']) { Invoke-GatepostRoute -Existing $objects['Routing'] -Outbound $objects['Outbound'] -Secret $secret -Creation @{ Enabled = $false } -Further @{ StopRuleProcessing = $true } }
    elseif ($null -ne $objects['Routing']) { Write-GatepostResult -Type 'transport rule' -Name $RoutingRuleName -Action 'Skipped' -Message "not looked at: the outbound connector '$OutboundConnectorName' is missing" }
    if ($null -ne $objects['CleanUp']) { Invoke-GatepostCleanUp -Existing $objects['CleanUp'] -Routing $objects['Routing'] -Secret $secret -NewPriority 0 }
    $missing
    if ($missing.Count -gt 0) { Write-Warning "Missing: $(@($missing | ForEach-Object { $_.Name }) -join ', '). Install-GatepostConnector.ps1 makes what is missing." }
} catch {
    $PSCmdlet.ThrowTerminatingError((Get-GatepostFailure -Record $_))
} finally {
    Disconnect-GatepostTenant
}
